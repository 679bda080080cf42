"""What Dormice is compared with."""

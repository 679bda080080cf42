/* The head of an entry in a tar archive (POSIX ustar). */
#ifndef DORMICE_TAR_H
#define DORMICE_TAR_H

enum { TAR_BLOCK = 512 };

struct tar_head {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
    char magic[8]; /* "ustar" NUL "00", or GNU's "ustar  " NUL */
    char uname[32], gname[32], major[8], minor[8], prefix[155], rest[12];
};

_Static_assert(sizeof(struct tar_head) == TAR_BLOCK, "a head is one block");

/* The sum that `checksum` has, which counts as spaces itself. */
static inline unsigned tar_sum(const struct tar_head *head)
{
    const unsigned char *bytes = (const unsigned char *)head;
    unsigned sum = 8 * ' ';
    for (unsigned index = 0; index < TAR_BLOCK; index++)
        if (index < 148 || index >= 156)
            sum += bytes[index];
    return sum;
}

#endif

/* What the file tools share.

   files.c   paths, entries, errors; stat, mkdir, rename, delete
   list.c    the entries of a directory
   read.c    the bytes of a file
   write.c   a file that is there as a whole or not at all
   pack.c    a directory as a tar archive
   unpack.c  a tar archive into a directory
   glob.c    files whose paths match a pattern
   walk.c    the names in a directory, in a stable order

   Paths and names may hold any byte. In arguments and on stdout they are escaped: `%` and two hexadecimal digits for every
   byte but letters, digits and `-._~/`.

   Entries on stdout are lines of eight fields, a space between two of them: type (f file, d directory, l symbolic link,
   o other), mode (octal), uid, gid, size, modification time (nanoseconds since the Unix epoch), name, target of a link.

   Errors are one line on stderr: the errno in decimal, or 0 for what has none, and what was being done. */
#ifndef DORMICE_FILES_H
#define DORMICE_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

enum { PIECE_BYTES = 64 * 1024, MOST_DEPTH = 1000 };

/* Says on stderr what failed, with errno or without one, and returns the exit status. */
int file_fail(const char *what);
int file_refuse(const char *why);

/* The path of an argument, which it takes the place of; NULL with errno when it is empty, wrongly escaped or holds NUL. */
char *path_argument(char *text);
/* Puts the entry `name` of a directory on stdout, under the name `shown`. False with errno when it cannot be looked at. */
bool put_entry(int dir, const char *name, const char *shown);
void put_status(const struct stat *status, const char *shown, const char *target);
/* The path without the slashes at its end, and its last part. */
void trim_slashes(char *path);
const char *last_part(const char *path);
/* The directory that a path's last part is in; -1 with errno. */
int open_parent(const char *path);
bool make_parents(char *path); /* what is missing above the last part; false with errno */

bool write_all(int fd, const void *data, size_t size);
/* Reads until `size` bytes are there or the end; -1 with errno. */
ssize_t read_full(int fd, void *data, size_t size);
/* Makes as many files open at once as may be: a walk holds one for each level. */
void raise_open_files(void);

/* Names in a directory, without `.` and `..`, sorted by their bytes. */
struct names {
    char **at;
    size_t count;
};

bool names_read(int dir, struct names *names); /* false with errno */
void names_free(struct names *names);

/* A new file without a name in `dir`; it gets one by `file_place`, and goes by itself where that is not reached. */
struct fresh {
    int fd;
    char name[32]; /* the name that it has all the same, where the file system has no files without one */
};

void random_name(char name[32]); /* of a file that will not stay */
bool fresh_open(struct fresh *fresh, int dir);                          /* false with errno */
bool fresh_place(struct fresh *fresh, int dir, const char *name);       /* replaces a file of that name; false with errno */
void fresh_drop(struct fresh *fresh, int dir);

int tool_stat(int argc, char **argv);
int tool_mkdir(int argc, char **argv);
int tool_rename(int argc, char **argv);
int tool_delete(int argc, char **argv);
int tool_list(int argc, char **argv);
int tool_read(int argc, char **argv);
int tool_write(int argc, char **argv);
int tool_pack(int argc, char **argv);
int tool_unpack(int argc, char **argv);
int tool_glob(int argc, char **argv);

#endif

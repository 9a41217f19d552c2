/*
 * full_disk: a disk that is full while a file is there.
 *
 * To be preloaded into a server (LD_PRELOAD), for a test that runs as anybody to
 * see what a full disk does.  While the file that FULL_DISK names is there, what
 * would make a file of a table or index longer fails with ENOSPC, as the server
 * extends them: by pwrite, pwritev or posix_fallocate.  WAL is written as ever.
 */
#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* Is it a file of a relation that is to become longer, and is the disk full? */
static bool
is_refused(int fd, off64_t end)
{
	const char *flag = getenv("FULL_DISK");
	char		link[64];
	char		path[1024];
	ssize_t		length;
	struct stat64 file;
	int			saved = errno;
	bool		refused = false;

	if (flag != NULL && access(flag, F_OK) == 0 &&
		fstat64(fd, &file) == 0 && S_ISREG(file.st_mode) && end > file.st_size)
	{
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		length = readlink(link, path, sizeof(path) - 1);
		if (length > 0)
		{
			path[length] = '\0';
			refused = strstr(path, "/base/") != NULL;
		}
	}
	errno = saved;
	return refused;
}

static size_t
total(const struct iovec *iov, int n)
{
	size_t		length = 0;

	for (int i = 0; i < n; i++)
		length += iov[i].iov_len;
	return length;
}

ssize_t
pwrite64(int fd, const void *buf, size_t count, off64_t offset)
{
	static ssize_t (*next) (int, const void *, size_t, off64_t);

	if (next == NULL)
		next = dlsym(RTLD_NEXT, "pwrite64");
	if (is_refused(fd, offset + (off64_t) count))
	{
		errno = ENOSPC;
		return -1;
	}
	return next(fd, buf, count, offset);
}

ssize_t
pwrite(int fd, const void *buf, size_t count, off_t offset)
{
	return pwrite64(fd, buf, count, offset);
}

ssize_t
pwritev64(int fd, const struct iovec *iov, int n, off64_t offset)
{
	static ssize_t (*next) (int, const struct iovec *, int, off64_t);

	if (next == NULL)
		next = dlsym(RTLD_NEXT, "pwritev64");
	if (is_refused(fd, offset + (off64_t) total(iov, n)))
	{
		errno = ENOSPC;
		return -1;
	}
	return next(fd, iov, n, offset);
}

ssize_t
pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
	return pwritev64(fd, iov, n, offset);
}

int
posix_fallocate64(int fd, off64_t offset, off64_t length)
{
	static int	(*next) (int, off64_t, off64_t);

	if (next == NULL)
		next = dlsym(RTLD_NEXT, "posix_fallocate64");
	if (is_refused(fd, offset + length))
		return ENOSPC;
	return next(fd, offset, length);
}

int
posix_fallocate(int fd, off_t offset, off_t length)
{
	return posix_fallocate64(fd, offset, length);
}

/*
 * clock: a server's wall clock that a test can set.
 *
 * To be preloaded into a server (LD_PRELOAD), for a test that wants an hour to
 * pass, or the clock to be set back, now.  The file that CLOCK_OFFSET names has
 * one number of eight bytes, the microseconds by which the clock is ahead; every
 * process has it in its memory, so that a change counts for all of them at once.
 * What is measured by the monotonic clock, such as a sleep, is as ever.
 */
#define _GNU_SOURCE

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset = NULL;

static void __attribute__((constructor))
map_offset(void)
{
	const char *path = getenv("CLOCK_OFFSET");
	int			fd = path != NULL ? open(path, O_RDONLY) : -1;
	void	   *page;

	if (fd < 0)
		return;
	page = mmap(NULL, sizeof(*offset), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (page != MAP_FAILED)
		offset = page;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	struct timespec now;
	int64_t		us;

	(void) tz;
	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return -1;
	us = (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
	if (offset != NULL)
		us += *offset;
	tv->tv_sec = us / 1000000;
	tv->tv_usec = us % 1000000;
	return 0;
}

/* A system clock that can be set, for one process: preloaded, it shifts CLOCK_REALTIME by what a file says, in
 * nanoseconds, and nothing else. As in the kernel, a wait until a time of that clock follows when the clock is set, and
 * every other wait goes on as it did. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define SLICE 10000000LL /* how late a wait notices that the clock was set */
#define BY_MONOTONIC 2   /* glibc: the condition's waits are by CLOCK_MONOTONIC */

static const int64_t none = 0;
static const volatile int64_t *ahead = &none;
static int (*real_gettime)(clockid_t, struct timespec *);
static int (*real_wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*real_cnd_wait)(cnd_t *, mtx_t *, const struct timespec *);

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("CLOCK_AHEAD");
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_wait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (real_wait == NULL)
        real_wait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    real_cnd_wait = dlsym(RTLD_NEXT, "cnd_timedwait");
    if (file < 0)
        return;
    void *page = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED)
        ahead = page;
    close(file);
}

static int64_t real_now(void) {
    struct timespec at;
    real_gettime(CLOCK_REALTIME, &at);
    return at.tv_sec * SECOND + at.tv_nsec;
}

static struct timespec spec(int64_t nanoseconds) {
    return (struct timespec){.tv_sec = nanoseconds / SECOND, .tv_nsec = nanoseconds % SECOND};
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    if (real_gettime == NULL)
        start();
    int result = real_gettime(clock, at);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        *at = spec(at->tv_sec * SECOND + at->tv_nsec + *ahead);
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *at = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at != NULL)
        *at = now.tv_sec;
    return now.tv_sec;
}

/* The next slice of a wait until that time of the shifted clock; whether it is the last. The others end as a waiter may
 * be woken for nothing at any time (POSIX, pthread_cond_timedwait), and it looks again: to go on here instead would miss
 * a signal that comes between two slices. */
static int slice(const struct timespec *until, struct timespec *next) {
    int64_t now = real_now(), due = until->tv_sec * SECOND + until->tv_nsec - *ahead;
    *next = spec(due < now + SLICE ? (due > 0 ? due : 0) : now + SLICE);
    return due <= now;
}

int pthread_cond_timedwait(pthread_cond_t *restrict told, pthread_mutex_t *restrict lock,
                           const struct timespec *restrict until) {
    if (told->__data.__wrefs & BY_MONOTONIC)
        return real_wait(told, lock, until);
    struct timespec next;
    int last = slice(until, &next), result = real_wait(told, lock, &next);
    return result == ETIMEDOUT && !last ? 0 : result;
}

int cnd_timedwait(cnd_t *restrict told, mtx_t *restrict lock, const struct timespec *restrict until) {
    struct timespec next;
    int last = slice(until, &next), result = real_cnd_wait(told, lock, &next);
    return result == thrd_timedout && !last ? thrd_success : result;
}

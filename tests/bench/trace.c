/* trace DIRECTORY: a workload that keeps, in a mapped file of its own, when it lived: three 64-bit numbers of
 * CLOCK_BOOTTIME in ns, first and last stamp and the longest time between two. The file survives the process, however
 * it dies. It is named <node>.<term>.<process id>. Where permitted it runs at the lowest real-time priority, so that other
 * work on the machine does not keep it from saying that it lives. */
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { STAMP_EVERY_NS = 200000, SLACK_NS = 1000 };

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int count, char **words)
{
    int64_t first = now_ns();
    const char *name = getenv("PAIR_AGENT_NAME"), *term = getenv("PAIR_AGENT_TERM");
    if (count != 2 || !name || !term)
        return 2;
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.%s.%d", words[1], name, term, (int)getpid());
    int file = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
    if (file < 0 || ftruncate(file, 3 * sizeof(int64_t)) != 0)
        return 1;
    volatile int64_t *life = mmap(NULL, 3 * sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (life == MAP_FAILED)
        return 1;
    struct sched_param lowest = {sched_get_priority_min(SCHED_RR)};
    sched_setscheduler(0, SCHED_RR, &lowest);
    prctl(PR_SET_TIMERSLACK, SLACK_NS);
    life[0] = life[1] = first;
    for (;;) {
        int64_t now = now_ns();
        if (now - life[1] > life[2])
            life[2] = now - life[1];
        life[1] = now;
        struct timespec pause = {0, STAMP_EVERY_NS};
        nanosleep(&pause, NULL);
    }
}

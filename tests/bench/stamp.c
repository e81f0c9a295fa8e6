/* stamp FILE [WORDS...]: appends "<CLOCK_BOOTTIME in ns> <term> WORDS..." to FILE with one write, before anything else.
 * Started as a workload (PAIR_AGENT_TERM is set) it then stays until it is killed; as a notify program it ends. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **words)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    if (count < 2)
        return 2;
    const char *term = getenv("PAIR_AGENT_TERM");
    char line[1024];
    int length = snprintf(line, sizeof line, "%lld %s", now.tv_sec * 1000000000LL + now.tv_nsec, term ? term : "-");
    for (int i = 2; i < count && length < (int)sizeof line - 2; i++)
        length += snprintf(line + length, sizeof line - 1 - length, " %s", words[i]);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    int file = open(words[1], O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (file < 0 || write(file, line, length) != length)
        return 1;
    while (term)
        pause();
    return 0;
}

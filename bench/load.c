/* A closed loop of calls: epoll, one thread, keep-alive.
 *
 *     load PORT PATH CONNECTIONS SECONDS json|stream|same
 *
 * Each connection sends a chat of about 2 KB, reads the whole answer and sends the next; each has
 * words of its own (but for `same`), and ten follow each other in a session. The first fifth of the
 * time is not counted. Prints one line: answers a second, the median and the 99th percentile of
 * their time in microseconds, all answers, and what was no whole 200.
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "words.h"

enum { ROOM = 1 << 15, MAX_TIMES = 1 << 22, TEXT = 1900 };

/* `left`: bytes of the body to come, -1 while the head is read, -2 for a body in chunks. */
typedef struct { int fd; long left; size_t used; double began; char bytes[ROOM + 1]; } conn;

static char request[8192];
static size_t request_size;
static int same; /* whether all send the words of the first */
static char *text, *session; /* places in it that each request has for itself */
static float *times;
static long counted, answers, failures;
static double count_from;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void ask(conn *c) {
    static long asked;
    char digits[16];
    if (!same || !asked) words(text, TEXT);
    memcpy(session, digits, snprintf(digits, sizeof digits, "%010ld", asked++ / 10));
    c->left = -1, c->used = 0, c->began = now();
    if (send(c->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) failures++;
}

static void done(conn *c) {
    double at = now();
    answers++;
    if (at >= count_from && counted < MAX_TIMES) times[counted++] = (at - c->began) * 1e6;
    ask(c);
}

static void head(conn *c) {
    c->bytes[c->used] = 0;
    char *end = strstr(c->bytes, "\r\n\r\n");
    if (!end) return;
    end[2] = 0;
    if (strncmp(c->bytes, "HTTP/1.1 200", 12)) failures++;
    char *length = strcasestr(c->bytes, "\ncontent-length:");
    c->left = length ? strtol(length + 16, NULL, 10) : -2;
    c->used -= end + 4 - c->bytes;
    memmove(c->bytes, end + 4, c->used);
}

/* The last chunk ends a body in chunks; the events hold no such line themselves. */
static int ended(conn *c) {
    if (c->left >= 0) {
        c->left -= c->used, c->used = 0;
        return c->left <= 0;
    }
    if (c->used >= 5 && !memcmp(c->bytes + c->used - 5, "0\r\n\r\n", 5)) return 1;
    if (c->used > 4) memmove(c->bytes, c->bytes + c->used - 4, 4), c->used = 4;
    return 0;
}

static int take(conn *c) { /* 0 when the connection is over */
    ssize_t got = recv(c->fd, c->bytes + c->used, ROOM - c->used, 0);
    if (got <= 0) return 0;
    c->used += got;
    if (c->left == -1) head(c);
    if (c->left != -1 && ended(c)) done(c);
    return 1;
}

static void prepare(const char *port, const char *path, int stream) {
    char body[4096];
    int size = snprintf(body, sizeof body,
        "{\"model\":\"gpt-4o\",%s\"messages\":[{\"role\":\"user\",\"content\":\"%*s\"}]}",
        stream ? "\"stream\":true,\"stream_options\":{\"include_usage\":true}," : "", TEXT, "");
    request_size = snprintf(request, sizeof request,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nUser-Agent: OpenAI/Python 3.54.0\r\n"
        "Accept: application/json\r\nAuthorization: Bearer sk-bench-0123456789abcdef\r\n"
        "Content-Type: application/json\r\nX-Traceway-Session-Id: bench-0000000000\r\n"
        "X-Stainless-Lang: python\r\nContent-Length: %d\r\n\r\n%s", path, port, size, body);
    session = strstr(request, "bench-0000000000") + 6;
    text = strstr(request, "\"content\":\"") + 11;
}

static int by_size(const void *a, const void *b) {
    float x = *(float *)a, y = *(float *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 6) return fprintf(stderr, "load PORT PATH CONNECTIONS SECONDS json|stream|same\n"), 2;
    int one = 1, poll = epoll_create1(0), connections = atoi(argv[3]);
    double began = now(), seconds = atof(argv[4]);
    struct sockaddr_in at = {AF_INET, htons(atoi(argv[1])), {htonl(INADDR_LOOPBACK)}, {0}};
    struct epoll_event ready[256], watch = {EPOLLIN, {0}};
    signal(SIGPIPE, SIG_IGN);
    same = !strcmp(argv[5], "same");
    prepare(argv[1], argv[2], !strcmp(argv[5], "stream"));
    times = malloc(MAX_TIMES * sizeof *times);
    count_from = began + seconds / 5;
    for (int i = 0; i < connections; i++) {
        conn *c = calloc(1, sizeof *c);
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd, (void *)&at, sizeof at)) return perror("connect"), 1;
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch.data.ptr = c;
        epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &watch);
        ask(c);
    }
    while (now() < began + seconds && connections) {
        int count = epoll_wait(poll, ready, 256, 100);
        for (int i = 0; i < count; i++) {
            conn *c = ready[i].data.ptr;
            if (!take(c)) failures++, connections--, close(c->fd);
        }
    }
    qsort(times, counted, sizeof *times, by_size);
    printf("%.1f %.1f %.1f %ld %ld\n", counted / (seconds * 4 / 5), counted ? times[counted / 2] : 0,
           counted ? times[counted * 99 / 100] : 0, answers, failures);
    return 0;
}

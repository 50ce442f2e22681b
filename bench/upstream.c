/* An upstream that costs next to nothing: epoll, one thread, keep-alive.
 *
 *     upstream PORT [THINK_MS]
 *
 * It thinks for so long before each answer (0).
 * A POST is answered with a chat completion of about 1 KB, in words of its own; one whose body has "stream":true with a
 * stream of 50 events, each a chunk and a write of its own. Knows just enough HTTP for bench/load.c
 * and for the proxies between them, which frame a request with Content-Length.
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

enum { ROOM = 1 << 16, EVENTS = 50, MAX_FDS = 1 << 16, TEXT = 640, THOUGHTS = 1 << 16 };

static struct { char *bytes; size_t used; unsigned turn; } conns[MAX_FDS];
/* Answers that are thought about, the next one first. A connection that ends meanwhile has another turn. */
static struct { long due_us; int fd, streams; unsigned turn; } thoughts[THOUGHTS];
static unsigned first, after_last;
static long think_us;
static char json[4096], event[512], usage[512];
static size_t json_size, event_size, usage_size;
static char *text; /* the place of the answer's words in it */

static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    "x-request-id: req_1\r\n\r\n";
static const char STREAM_END[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

static size_t chunk(char *to, size_t room, const char *choices, const char *more) {
    char data[400];
    int size = snprintf(data, sizeof data,
        "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,"
        "\"model\":\"gpt-4o-2024-08-06\",\"choices\":[%s]%s}\n\n", choices, more);
    return snprintf(to, room, "%x\r\n%s\r\n", size, data);
}

static void prepare(void) {
    char body[2048];
    int size = snprintf(body, sizeof body,
        "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1760000000,"
        "\"model\":\"gpt-4o-2024-08-06\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
        "\"assistant\",\"content\":\"%*s\"},\"finish_reason\":\"stop\"}],\"usage\":{"
        "\"prompt_tokens\":400,\"completion_tokens\":100,\"total_tokens\":500}}", TEXT, "");
    json_size = snprintf(json, sizeof json,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        "x-request-id: req_1\r\nopenai-processing-ms: 1\r\n\r\n%s", size, body);
    text = strstr(json, "\"content\":\"") + 11;
    event_size = chunk(event, sizeof event,
        "{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":null}", "");
    usage_size = chunk(usage, sizeof usage, "",
        ",\"usage\":{\"prompt_tokens\":400,\"completion_tokens\":50,\"total_tokens\":450}");
}

/* Small answers to a client that reads: a full buffer would mean that the bench itself is broken. */
static void put(int fd, const char *bytes, size_t size) {
    while (size) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent < 0) return;
        bytes += sent, size -= sent;
    }
}

static void answer(int fd, int streams) {
    if (!streams) {
        words(text, TEXT);
        put(fd, json, json_size);
        return;
    }
    put(fd, STREAM_HEAD, sizeof STREAM_HEAD - 1);
    for (int i = 0; i < EVENTS; i++) put(fd, event, event_size);
    put(fd, usage, usage_size);
    put(fd, STREAM_END, sizeof STREAM_END - 1);
}

static long now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static void asked(int fd, const char *body, size_t size) {
    int streams = memmem(body, size, "\"stream\":true", 13) != NULL;
    if (!think_us) {
        answer(fd, streams);
        return;
    }
    unsigned place = after_last++ % THOUGHTS;
    thoughts[place].due_us = now_us() + think_us;
    thoughts[place].fd = fd, thoughts[place].streams = streams, thoughts[place].turn = conns[fd].turn;
}

static int think(void) { /* milliseconds until there is more to say, rounded up; -1: nothing */
    for (; first != after_last; first++) {
        unsigned place = first % THOUGHTS;
        long left_us = thoughts[place].due_us - now_us();
        if (left_us > 0) return left_us / 1000 + 1;
        int fd = thoughts[place].fd;
        if (conns[fd].turn == thoughts[place].turn) answer(fd, thoughts[place].streams);
    }
    return -1;
}

static int take(int fd) { /* 0 when the connection is over */
    if (!conns[fd].bytes) conns[fd].bytes = malloc(ROOM + 1);
    char *bytes = conns[fd].bytes;
    ssize_t got = recv(fd, bytes + conns[fd].used, ROOM - conns[fd].used, 0);
    if (got <= 0) return 0;
    conns[fd].used += got;
    for (;;) {
        bytes[conns[fd].used] = 0;
        char *end = memmem(bytes, conns[fd].used, "\r\n\r\n", 4);
        if (!end) return conns[fd].used < ROOM;
        char *length = strcasestr(bytes, "\ncontent-length:");
        size_t head = end + 4 - bytes;
        size_t body = length && length < end ? strtoul(length + 16, NULL, 10) : 0;
        if (head + body > ROOM) return 0;
        if (conns[fd].used < head + body) return 1;
        asked(fd, bytes + head, body);
        conns[fd].used -= head + body;
        memmove(bytes, bytes + head + body, conns[fd].used);
    }
}

int main(int argc, char **argv) {
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0);
    struct sockaddr_in at = {AF_INET, htons(argc > 1 ? atoi(argv[1]) : 0), {htonl(INADDR_LOOPBACK)}, {0}};
    struct epoll_event ready[256], watch = {EPOLLIN, {.fd = listener}};
    think_us = argc > 2 ? atol(argv[2]) * 1000 : 0;
    signal(SIGPIPE, SIG_IGN);
    prepare();
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&at, sizeof at) || listen(listener, 4096)) return perror("listen"), 1;
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &watch);
    for (;;) {
        int count = epoll_wait(poll, ready, 256, think());
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd != listener) {
                if (!take(fd)) conns[fd].used = 0, conns[fd].turn++, close(fd);
                continue;
            }
            fd = accept(listener, NULL, NULL);
            if (fd < 0 || fd >= MAX_FDS) { close(fd); continue; }
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            watch.data.fd = fd;
            epoll_ctl(poll, EPOLL_CTL_ADD, fd, &watch);
        }
    }
}

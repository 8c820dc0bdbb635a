/* The sink: takes mail as fast as one process can, and throws it away.
 *
 * One thread, one epoll, one recv and one send a turn. It listens on a free port of 127.0.0.1
 * and says "ready PORT" on its standard output. Its standard input is the control line:
 *
 *     take      print the counters as one line of JSON, and start again from zero
 *     hold MS   give no reply until every connection was silent for MS milliseconds; 0 ends that
 *     (end)     exit; so it never outlives whoever started it
 *
 * "waits" counts, from the first MAIL of a connection on, how often input came only after a
 * reply had left. While replies are held, that is how often the client would not go on without
 * one: the round trips it needs, whatever the machine is doing.
 *
 * What it does not do: check addresses, limit anything, store anything, TLS.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_SIZE (1 << 20)
#define LINE_SIZE 8192
#define EVENTS 256

enum state { COMMAND, CONTENT, CHUNK };

struct conn {
    int fd;
    enum state state;
    bool mail;            /* MAIL was accepted */
    bool started;         /* a MAIL was seen on this connection: waits count */
    bool replied;         /* a reply left, and nothing came since */
    bool fresh;           /* no octet of this content was read yet */
    bool last, discard;   /* of the chunk that is being read */
    bool closing;
    unsigned recipients;  /* accepted in this transaction */
    uint64_t left;        /* octets of the chunk still to come */
    size_t carried;       /* octets of `carry` in use: half a line, half a terminator */
    char carry[LINE_SIZE];
    char *out;
    size_t out_len, out_cap;
    bool waiting_out;
    struct conn *next, **link;
};

static struct {
    uint64_t messages, recipients, octets, waits, connections, commands;
} counted;

static char input[LINE_SIZE + INPUT_SIZE];
static struct conn *everyone;
static int poller, hold_ms;
static uint64_t queued;
static double cpu_taken;

static double cpu_seconds(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return use.ru_utime.tv_sec + use.ru_stime.tv_sec
           + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* -- replies ------------------------------------------------------------------------------ */

static void say(struct conn *c, const char *text, size_t length)
{
    if (c->out_len + length > c->out_cap) {
        c->out_cap = (c->out_len + length) * 2;
        if (!(c->out = realloc(c->out, c->out_cap)))
            die("realloc");
    }
    memcpy(c->out + c->out_len, text, length);
    c->out_len += length;
}

#define SAY(c, text) say((c), (text), sizeof(text) - 1)

static void say_queued(struct conn *c)
{
    char line[64];
    int length = snprintf(line, sizeof line, "250 2.0.0 Ok: queued as %llX\r\n",
                          (unsigned long long)++queued + 0x4F0000000ULL);
    say(c, line, (size_t)length);
}

static void want(struct conn *c, bool out)
{
    if (c->waiting_out == out)
        return;
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
    c->waiting_out = out;
}

static void hang_up(struct conn *c)
{
    if (c->next)
        c->next->link = c->link;
    *c->link = c->next;
    close(c->fd);
    free(c->out);
    free(c);
}

/* False if the connection is gone. */
static bool flush(struct conn *c)
{
    if (c->out_len) {
        ssize_t sent = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            hang_up(c);
            return false;
        }
        if (sent > 0) {
            c->replied = true;
            c->out_len -= (size_t)sent;
            memmove(c->out, c->out + sent, c->out_len);
        }
    }
    want(c, c->out_len > 0);
    if (c->closing && !c->out_len) {
        hang_up(c);
        return false;
    }
    return true;
}

/* -- what is said to us ------------------------------------------------------------------- */

static void forget_envelope(struct conn *c)
{
    c->mail = false;
    c->recipients = 0;
}

static void took_message(struct conn *c)
{
    counted.messages++;
    counted.recipients += c->recipients;
    forget_envelope(c);
    say_queued(c);
}

static void took_chunk(struct conn *c)
{
    c->state = COMMAND;
    if (c->discard)
        SAY(c, "503 5.5.1 Error: need MAIL and RCPT first\r\n");
    else if (c->last)
        took_message(c);
    else
        SAY(c, "250 2.0.0 Ok\r\n");
}

static void begin_chunk(struct conn *c, const char *line)
{
    char *rest;
    c->left = strtoull(line + 5, &rest, 10);
    c->last = strncasecmp(rest, " LAST", 5) == 0;
    c->discard = !c->recipients;
    c->state = CHUNK;
    if (!c->left)
        took_chunk(c);
}

/* `line` is ended by a NUL where its line feed was. */
static void command(struct conn *c, const char *line)
{
    counted.commands++;
    if (!strncasecmp(line, "MAIL FROM:", 10)) {
        c->started = c->mail = true;
        c->recipients = 0;
        SAY(c, "250 2.1.0 Ok\r\n");
    } else if (!strncasecmp(line, "RCPT TO:", 8)) {
        if (c->mail) {
            c->recipients++;
            SAY(c, "250 2.1.5 Ok\r\n");
        } else
            SAY(c, "503 5.5.1 Error: need MAIL command\r\n");
    } else if (!strncasecmp(line, "DATA", 4)) {
        if (c->recipients) {
            c->state = CONTENT;
            c->fresh = true;
            SAY(c, "354 End data with <CR><LF>.<CR><LF>\r\n");
        } else
            SAY(c, "503 5.5.1 Error: need RCPT command\r\n");
    } else if (!strncasecmp(line, "BDAT ", 5)) {
        begin_chunk(c, line);
    } else if (!strncasecmp(line, "RSET", 4)) {
        forget_envelope(c);
        SAY(c, "250 2.0.0 Ok\r\n");
    } else if (!strncasecmp(line, "NOOP", 4)) {
        SAY(c, "250 2.0.0 Ok\r\n");
    } else if (!strncasecmp(line, "EHLO", 4) || !strncasecmp(line, "LHLO", 4)) {
        forget_envelope(c);
        SAY(c, "250-sink.example\r\n250-PIPELINING\r\n250-SIZE 1073741824\r\n250-8BITMIME\r\n"
               "250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n");
    } else if (!strncasecmp(line, "HELO", 4)) {
        forget_envelope(c);
        SAY(c, "250 sink.example\r\n");
    } else if (!strncasecmp(line, "QUIT", 4)) {
        c->closing = true;
        SAY(c, "221 2.0.0 Bye\r\n");
    } else
        SAY(c, "502 5.5.2 Error: command not recognized\r\n");
}

/* Reads content up to and with the line that is a dot. Returns where it stopped: what is behind
 * that may be half a terminator. */
static char *content(struct conn *c, char *p, char *end)
{
    if (c->fresh) {
        if (*p == '.') {
            if (end - p < 3)
                return p;
            if (p[1] == '\r' && p[2] == '\n') {
                c->state = COMMAND;
                took_message(c);
                return p + 3;
            }
        }
        c->fresh = false;
    }
    for (char *dot = p; (dot = memchr(dot, '.', (size_t)(end - dot))); dot++) {
        if (dot - p < 2 || dot[-1] != '\n' || dot[-2] != '\r')
            continue;
        if (end - dot < 3) {
            counted.octets += (uint64_t)(dot - 2 - p);
            return dot - 2;
        }
        if (dot[1] == '\r' && dot[2] == '\n') {
            counted.octets += (uint64_t)(dot - p);
            c->state = COMMAND;
            took_message(c);
            return dot + 3;
        }
    }
    char *keep = end - p > 2 ? end - 2 : p;
    counted.octets += (uint64_t)(keep - p);
    return keep;
}

static char *chunk(struct conn *c, char *p, char *end)
{
    uint64_t here = (uint64_t)(end - p) < c->left ? (uint64_t)(end - p) : c->left;
    c->left -= here;
    if (!c->discard)
        counted.octets += here;
    if (!c->left)
        took_chunk(c);
    return p + here;
}

/* Reads what can be read; what is left over waits in `carry`. */
static void understand(struct conn *c, char *p, char *end)
{
    while (p < end && !c->closing) {
        char *before = p;
        if (c->state == CHUNK)
            p = chunk(c, p, end);
        else if (c->state == CONTENT)
            p = content(c, p, end);
        else {
            char *feed = memchr(p, '\n', (size_t)(end - p));
            if (feed) {
                *feed = '\0';
                command(c, p);
                p = feed + 1;
            }
        }
        if (p == before)
            break;
    }
    c->carried = (size_t)(end - p);
    if (c->carried > LINE_SIZE) {
        c->carried = 0;
        c->closing = true;
        SAY(c, "500 5.5.2 Error: line too long\r\n");
    }
    memcpy(c->carry, p, c->carried);
}

static void serve(struct conn *c)
{
    bool skipping = c->state == CHUNK && !c->carried;
    char *at = input + c->carried;
    ssize_t got;
    /* TCP throws octets away without copying them, if it is asked to: recv(2), MSG_TRUNC. */
    if (skipping)
        got = recv(c->fd, NULL, c->left < (1u << 30) ? (size_t)c->left : (1u << 30), MSG_TRUNC);
    else {
        memcpy(input, c->carry, c->carried);
        got = recv(c->fd, at, INPUT_SIZE, 0);
    }
    if (got < 0 && errno == EAGAIN)
        return;
    if (c->replied && c->started)
        counted.waits++;
    c->replied = false;
    if (got <= 0) {
        hang_up(c);
        return;
    }
    if (skipping) {
        c->left -= (uint64_t)got;
        if (!c->discard)
            counted.octets += (uint64_t)got;
        if (!c->left)
            took_chunk(c);
    } else
        understand(c, input, at + got);
    if (!hold_ms)
        flush(c);
}

/* -- connections, control, the loop ------------------------------------------------------- */

static void welcome(int listener)
{
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct conn *c = calloc(1, sizeof *c);
        if (!c)
            die("calloc");
        c->fd = fd;
        c->next = everyone;
        c->link = &everyone;
        if (everyone)
            everyone->link = &c->next;
        everyone = c;
        counted.connections++;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
        SAY(c, "220 sink.example ESMTP\r\n");
        if (!hold_ms)
            flush(c);
    }
}

static void flush_everyone(void)
{
    for (struct conn *c = everyone, *next; c; c = next) {
        next = c->next;
        flush(c);
    }
}

static void take(void)
{
    double now = cpu_seconds();
    printf("{\"messages\": %llu, \"recipients\": %llu, \"octets\": %llu, \"waits\": %llu, "
           "\"connections\": %llu, \"commands\": %llu, \"cpu_seconds\": %.6f}\n",
           (unsigned long long)counted.messages, (unsigned long long)counted.recipients,
           (unsigned long long)counted.octets, (unsigned long long)counted.waits,
           (unsigned long long)counted.connections, (unsigned long long)counted.commands,
           now - cpu_taken);
    fflush(stdout);
    cpu_taken = now;
    memset(&counted, 0, sizeof counted);
}

static void obey(void)
{
    char line[64];
    ssize_t got = read(STDIN_FILENO, line, sizeof line - 1);
    if (got <= 0)
        exit(0);
    line[got] = '\0';
    if (!strncmp(line, "take", 4))
        take();
    else if (!strncmp(line, "hold ", 5)) {
        hold_ms = atoi(line + 5);
        flush_everyone();
        printf("holding %d\n", hold_ms);
        fflush(stdout);
    }
}

static int listen_on_loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) || listen(fd, 4096)
        || getsockname(fd, (struct sockaddr *)&address, &length))
        die("listen");
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(void)
{
    static char listening, controlling; /* their addresses tell them from connections */
    struct rlimit files;
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN};

    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on_loopback();
    event.data.ptr = &listening;
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = &controlling;
    epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event);

    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, hold_ms ? hold_ms : -1);
        if (!ready)
            flush_everyone();
        bool asked = false; /* obeyed last: that may free connections named in `events` */
        for (int i = 0; i < ready; i++) {
            struct conn *c = events[i].data.ptr;
            if ((void *)c == &listening)
                welcome(listener);
            else if ((void *)c == &controlling)
                asked = true;
            else if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                serve(c);
            else
                flush(c);
        }
        if (asked)
            obey();
    }
}

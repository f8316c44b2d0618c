/* Where a crash happened: stores signal, address and kind of access into a page that the parent process can read
 * after this process is gone. Also a clock that no patched Python module can bend.
 *
 * Everything in the handler is async-signal-safe: plain stores, sigaction, raise. */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

enum { ACCESS_UNKNOWN = 0, ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_EXECUTE = 3 };

/* The first 24 bytes of the shared control page; lnbench.memory.Control reads it with the same offsets. */
struct fault {
    volatile uint32_t signal;
    volatile int32_t code;
    volatile uint32_t access;
    uint32_t reserved;
    volatile uint64_t address;
};

static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
enum { SIGNALS = sizeof signals / sizeof signals[0] };

static struct fault *page;
static struct sigaction previous[SIGNALS];
static char stack[64 * 1024];

#if defined(__linux__) && defined(__aarch64__)
/* The syndrome register is one of several records after the general registers. */
static uint32_t access_kind(const ucontext_t *context)
{
    const unsigned char *at = (const unsigned char *)context->uc_mcontext.__reserved;
    const unsigned char *end = at + sizeof context->uc_mcontext.__reserved;
    while (at + 16 <= end) {
        uint32_t head[2];
        uint64_t syndrome;
        memcpy(head, at, sizeof head);
        if (head[0] == 0 || head[1] == 0)
            break;
        if (head[0] == 0x45535201u) { /* ESR_MAGIC */
            memcpy(&syndrome, at + 8, sizeof syndrome);
            return (syndrome >> 6 & 1) ? ACCESS_WRITE : ACCESS_READ;
        }
        at += head[1];
    }
    return ACCESS_UNKNOWN;
}
#else
static uint32_t access_kind(const ucontext_t *context)
{
#if defined(__linux__) && defined(__x86_64__)
    const uint64_t error = (uint64_t)context->uc_mcontext.gregs[REG_ERR];
    return (error & 16) ? ACCESS_EXECUTE : (error & 2) ? ACCESS_WRITE : ACCESS_READ;
#elif defined(__APPLE__) && defined(__x86_64__)
    const uint64_t error = context->uc_mcontext->__es.__err;
    return (error & 16) ? ACCESS_EXECUTE : (error & 2) ? ACCESS_WRITE : ACCESS_READ;
#elif defined(__APPLE__) && defined(__aarch64__)
    return (context->uc_mcontext->__es.__esr >> 6 & 1) ? ACCESS_WRITE : ACCESS_READ;
#else
    (void)context;
    return ACCESS_UNKNOWN;
#endif
}
#endif

static void handle(int number, siginfo_t *info, void *context)
{
    if (page != NULL && page->signal == 0) { /* the first fault is the one that counts */
        page->code = info->si_code;
        page->access = (number == SIGSEGV || number == SIGBUS) ? access_kind(context) : ACCESS_UNKNOWN;
        page->address = (uint64_t)(uintptr_t)info->si_addr;
        page->signal = (uint32_t)number;
    }
    for (int i = 0; i < SIGNALS; i++)
        if (signals[i] == number)
            sigaction(number, &previous[i], NULL);
    /* Blocked until this handler returns; then the previous handler (which writes a traceback) or death. */
    raise(number);
}

/* Stores faults into `control` (at least sizeof(struct fault) bytes, shared with the parent). 0, or -1 on failure. */
int lnb_probe_install(void *control)
{
    struct sigaction action;
    stack_t own, present;
    page = control;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    /* An alternate stack lets a stack overflow of this thread be reported; other threads use their own stack. */
    if (sigaltstack(NULL, &present) == 0 && (present.ss_flags & SS_DISABLE)) {
        memset(&own, 0, sizeof own);
        own.ss_sp = stack;
        own.ss_size = sizeof stack;
        sigaltstack(&own, NULL);
    }
    for (int i = 0; i < SIGNALS; i++)
        if (sigaction(signals[i], &action, &previous[i]) != 0)
            return -1;
    return 0;
}

/* Nanoseconds of the monotonic clock; -1 where there is none. */
int64_t lnb_probe_now(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_MONOTONIC, &t) != 0)
        return -1;
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

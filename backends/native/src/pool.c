/*
 * The thread pool. An idle worker watches its own ticket for SPIN_NANOSECONDS, so that in a train of calls a job starts
 * within a fraction of a microsecond, and then sleeps on a condition variable and costs nothing.
 *
 * Each member of a team has a share of the parts, always the same, so that in a train of calls it finds them in its own
 * cache. A member that is done takes what is left of the others' shares: a worker that the system has not yet woken,
 * or that it has stopped, delays a job by one part at most, and one that never came is not waited for.
 *
 * Workers inherit the caller's processor affinity and are never pinned. The system may wake a worker on the very processor that
 * its caller keeps busy, and leave it there; such a worker moves away once. After fork() the child starts with an empty pool.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

enum { MAX_WORKERS = 255, SPIN_NANOSECONDS = 50000, LOOKS_PER_CLOCK = 32 };

/* A place to wait for a change of `value`: watched first, slept at later. */
struct gate {
    atomic_uint value;
    atomic_int asleep;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

/* The number of a job and how many parts of a share nobody has taken yet: (job << 32) | parts. */
struct share {
    _Alignas(64) _Atomic uint64_t left;
};

static struct pool {
    struct gate tickets[MAX_WORKERS], done;
    struct share shares[MAX_WORKERS + 1];
    atomic_int busy, finished, team, watches, caller_processor; /* watches: whether who waits should spin first */
    uint32_t job;
    int workers, processors;
    /* The job; written while no part of the last one is at work, read by who has taken a part. */
    void (*fn)(const void *, int, int);
    const void *context;
    int parts;
} pool;

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void gate_init(struct gate *g) {
    atomic_store_explicit(&g->value, 0, memory_order_relaxed);
    atomic_store_explicit(&g->asleep, 0, memory_order_relaxed);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->wake, NULL);
}

/*
 * Either the sleeper sees the new value or the opener sees the sleeper: both accesses are sequentially consistent.
 * Returns whether somebody slept.
 */
static int gate_open(struct gate *g) {
    atomic_fetch_add(&g->value, 1);
    if (!atomic_load(&g->asleep)) return 0;
    pthread_mutex_lock(&g->lock);
    pthread_cond_signal(&g->wake);
    pthread_mutex_unlock(&g->lock);
    return 1;
}

static int gate_watch(struct gate *g, unsigned seen) {
    int64_t end = nanoseconds() + SPIN_NANOSECONDS;
    do {
        for (int i = 0; i < LOOKS_PER_CLOCK; i++) {
            if (atomic_load_explicit(&g->value, memory_order_acquire) != seen) return 1;
            relax();
        }
    } while (nanoseconds() < end);
    return 0;
}

/* Waits until the value is not `seen`; returns whether it slept. */
static int gate_wait(struct gate *g, unsigned seen) {
    if (atomic_load_explicit(&pool.watches, memory_order_relaxed) && gate_watch(g, seen)) return 0;
    pthread_mutex_lock(&g->lock);
    atomic_store(&g->asleep, 1);
    while (atomic_load(&g->value) == seen) pthread_cond_wait(&g->wake, &g->lock);
    atomic_store(&g->asleep, 0);
    pthread_mutex_unlock(&g->lock);
    return 1;
}

static int processor(void) {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

/* The first part of a member's share; the share ends where the next member's begins. */
static int share_begin(int member) {
    return (int)((int64_t)pool.parts * member / atomic_load_explicit(&pool.team, memory_order_relaxed));
}

/* Takes a part of `member`'s share in job `job`, counted from the end of the share by 1; 0: none is left. */
static uint32_t take(int member, uint32_t job) {
    _Atomic uint64_t *left = &pool.shares[member].left;
    uint64_t seen = atomic_load_explicit(left, memory_order_acquire);
    while (seen >> 32 == job && (uint32_t)seen) {
        if (atomic_compare_exchange_weak_explicit(left, &seen, seen - 1, memory_order_acq_rel, memory_order_acquire)) {
            return (uint32_t)seen;
        }
    }
    return 0;
}

/* Does parts of job `job`, its own first, until none is left to take. */
static void work(int member, uint32_t job) {
    int team = atomic_load_explicit(&pool.team, memory_order_relaxed);
    for (int i = 0; i < team; i++) {
        int owner = (member + i) % team;
        for (uint32_t left; (left = take(owner, job));) {
            int parts = pool.parts;
            pool.fn(pool.context, share_begin(owner + 1) - (int)left, parts);
            if (atomic_fetch_add(&pool.finished, 1) + 1 == parts) gate_open(&pool.done);
        }
    }
}

/* Leaves the processor on which the caller of the job is at work. */
static void move_away(void) {
#if defined(__linux__)
    cpu_set_t mine, others;
    int here = processor();
    if (here < 0 || here != atomic_load_explicit(&pool.caller_processor, memory_order_relaxed)) return;
    if (sched_getaffinity(0, sizeof mine, &mine) || CPU_COUNT(&mine) < 2) return;
    others = mine;
    CPU_CLR(here, &others);
    if (!sched_setaffinity(0, sizeof others, &others)) sched_setaffinity(0, sizeof mine, &mine);
#endif
}

static void *worker(void *argument) {
    int index = (int)(intptr_t)argument;
    struct gate *ticket = &pool.tickets[index];
    for (unsigned seen = 0;;) {
        int slept = gate_wait(ticket, seen);
        seen = atomic_load(&ticket->value);
        if (slept) move_away();
        uint64_t share = atomic_load_explicit(&pool.shares[index + 1].left, memory_order_acquire);
        work(index + 1, (uint32_t)(share >> 32));
    }
    return NULL;
}

int lnb_pool_processors(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set)) return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

static void after_fork(void) {
    pool.workers = 0;
    atomic_store(&pool.busy, 0);
}

static void start_once(void) {
    gate_init(&pool.done);
    pthread_atfork(NULL, NULL, after_fork);
}

/* Has at least `wanted` workers, as far as the system allows. They take no signals. */
static void grow(int wanted) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_once(&once, start_once);
    if (!pool.workers) gate_init(&pool.done);
    pool.processors = lnb_pool_processors();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while (pool.workers < wanted && pool.workers < MAX_WORKERS) {
        pthread_t thread;
        gate_init(&pool.tickets[pool.workers]);
        if (pthread_create(&thread, &attributes, worker, (void *)(intptr_t)pool.workers)) break;
        pool.workers++;
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Offers every member its share. Returns whether a worker had to be woken. */
static int publish(int helpers) {
    uint64_t job = (uint64_t)++pool.job << 32;
    int woken = 0;
    atomic_store(&pool.finished, 0);
    atomic_store_explicit(&pool.caller_processor, processor(), memory_order_relaxed);
    for (int i = 0; i <= helpers; i++) {
        uint64_t parts = (uint64_t)(share_begin(i + 1) - share_begin(i));
        atomic_store_explicit(&pool.shares[i].left, job | parts, memory_order_release);
    }
    for (int i = 0; i < helpers; i++) woken |= gate_open(&pool.tickets[i]);
    return woken;
}

/* A worker that was woken but has not come may be waiting for this processor. */
static void let_others_run(void) {
#if defined(__linux__)
    sched_yield();
#endif
}

/* Until all parts are done. The gate may have been opened for an earlier job: its value is read before they are counted. */
static void await_others(int parts) {
    for (;;) {
        unsigned seen = atomic_load(&pool.done.value);
        if (atomic_load(&pool.finished) == parts) return;
        gate_wait(&pool.done, seen);
    }
}

void lnb_pool_run(void (*fn)(const void *, int, int), const void *context, int parts, int threads) {
    if (threads > parts) threads = parts;
    if (threads <= 1 || atomic_exchange(&pool.busy, 1)) {
        for (int part = 0; part < parts; part++) fn(context, part, parts);
        return;
    }
    if (pool.workers < threads - 1) grow(threads - 1);
    int helpers = pool.workers < threads - 1 ? pool.workers : threads - 1;
    pool.fn = fn;
    pool.context = context;
    pool.parts = parts;
    atomic_store(&pool.team, helpers + 1);
    atomic_store(&pool.watches, helpers + 1 <= pool.processors);
    int woken = publish(helpers);
    work(0, pool.job);
    if (woken && atomic_load(&pool.finished) == parts) let_others_run();
    await_others(parts);
    atomic_store(&pool.busy, 0);
}

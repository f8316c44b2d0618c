/*
 * The thread pool. An idle worker watches its own ticket for SPIN_NANOSECONDS, so that in a train of calls a job starts
 * within a fraction of a microsecond, and then sleeps on a condition variable and costs nothing. Workers inherit
 * the caller's processor affinity and are never pinned. After fork() the child starts with an empty pool.
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

static struct pool {
    struct gate tickets[MAX_WORKERS], done;
    atomic_int busy, pending;
    int workers, processors;
    /* The job; written while no worker of its team runs. */
    void (*fn)(const void *, int, int);
    const void *context;
    int parts, team, spin;
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

/* Either the sleeper sees the new value or the opener sees the sleeper: both accesses are sequentially consistent. */
static void gate_open(struct gate *g) {
    atomic_fetch_add(&g->value, 1);
    if (!atomic_load(&g->asleep)) return;
    pthread_mutex_lock(&g->lock);
    pthread_cond_signal(&g->wake);
    pthread_mutex_unlock(&g->lock);
}

static void gate_wait(struct gate *g, unsigned seen, int spin) {
    if (spin) {
        int64_t end = nanoseconds() + SPIN_NANOSECONDS;
        do {
            for (int i = 0; i < LOOKS_PER_CLOCK; i++) {
                if (atomic_load_explicit(&g->value, memory_order_acquire) != seen) return;
                relax();
            }
        } while (nanoseconds() < end);
    }
    pthread_mutex_lock(&g->lock);
    atomic_store(&g->asleep, 1);
    while (atomic_load(&g->value) == seen) pthread_cond_wait(&g->wake, &g->lock);
    atomic_store(&g->asleep, 0);
    pthread_mutex_unlock(&g->lock);
}

static void run_share(int member) {
    for (int part = member; part < pool.parts; part += pool.team) pool.fn(pool.context, part, pool.parts);
}

static void *worker(void *argument) {
    int index = (int)(intptr_t)argument, spin = 1;
    for (unsigned seen = 0;; seen++) {
        gate_wait(&pool.tickets[index], seen, spin);
        run_share(index + 1);
        spin = pool.spin;
        if (atomic_fetch_sub(&pool.pending, 1) == 1) gate_open(&pool.done);
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

void lnb_pool_run(void (*fn)(const void *, int, int), const void *context, int parts) {
    if (parts <= 1 || atomic_exchange(&pool.busy, 1)) {
        for (int part = 0; part < parts; part++) fn(context, part, parts);
        return;
    }
    if (pool.workers < parts - 1) grow(parts - 1);
    int helpers = pool.workers < parts - 1 ? pool.workers : parts - 1;
    pool.fn = fn;
    pool.context = context;
    pool.parts = parts;
    pool.team = helpers + 1;
    pool.spin = pool.team <= pool.processors;
    atomic_store(&pool.pending, helpers);
    unsigned seen = atomic_load(&pool.done.value);
    for (int i = 0; i < helpers; i++) gate_open(&pool.tickets[i]);
    run_share(0);
    if (helpers) gate_wait(&pool.done, seen, pool.spin);
    atomic_store(&pool.busy, 0);
}

/* A persistent pool of threads that runs one job at a time. */
#ifndef LNB_POOL_H
#define LNB_POOL_H

/*
 * Calls fn(context, part, parts) once for each part, on at most `threads` threads, the caller among them, and returns when
 * all are done. Who does which part is open: when the pool is busy with another caller's job, when threads
 * cannot be created or come late, fewer threads (at worst the caller alone) do the same parts.
 */
void lnb_pool_run(void (*fn)(const void *context, int part, int parts), const void *context, int parts, int threads);

/* Processors that this process may use. */
int lnb_pool_processors(void);

#endif

/* The speed of memory: copies and triads as fast as the machine allows, for every working set and thread count. */
#ifndef LNB_PROBE_CEILINGS_H
#define LNB_PROBE_CEILINGS_H

#include <stdint.h>

#if defined(__GNUC__)
#define LNB_PROBE_API __attribute__((visibility("default")))
#else
#define LNB_PROBE_API
#endif

/* How stores and loads are made: the sum of these, or 0 for ordinary stores without prefetch instructions. */
enum { LNB_PROBE_STREAM = 1, LNB_PROBE_PREFETCH = 2 };

/*
 * Each returns the seconds that one repeat takes, on average over `repeats`, or a negative number when the arguments
 * are unsound or threads cannot be started. `bytes` is the size of each array; arrays are float32, aligned to 4 bytes
 * or better, and do not overlap. Threads are started, and have met, before the clock is read; each works on
 * its own contiguous share in every repeat, without waiting for the others. `style` is a sum of LNB_PROBE_ values.
 */
LNB_PROBE_API double lnb_probe_copy(void *dst, const void *src, int64_t bytes, int threads, int style, int repeats);

/* dst = a + 0.5 b */
LNB_PROBE_API double lnb_probe_triad(void *dst, const void *a, const void *b, int64_t bytes, int threads, int style,
                                     int repeats);

/* Reads only: the sum of a, which keeps the reads alive, goes to `sum`. */
LNB_PROBE_API double lnb_probe_read(double *sum, const void *a, int64_t bytes, int threads, int style, int repeats);

/* The widest instruction set in use: "avx512", "avx2" or "baseline". */
LNB_PROBE_API const char *lnb_probe_width(void);

#endif

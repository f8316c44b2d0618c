/* What the target-free files share: the target in use, the check of a call, the reason of a refusal. */
#ifndef LNB_INTERNAL_H
#define LNB_INTERNAL_H

#include <stdbool.h>

#include "kernels.h"

/* The target in use; NULL when LNBENCH_TARGET or lnb_set_target named one that cannot run, with the reason set. */
const struct lnb_target *lnb_active(void);

/* Remembers why this thread's call is refused, and returns the status. */
int lnb_refuse(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* LNB_OK, or the status to refuse the call with. */
int lnb_check(const lnb_layer_norm *call, bool backward);

static inline int64_t lnb_size_of(int type) { return type == LNB_F64 ? 8 : type == LNB_F32 ? 4 : 2; }
static inline bool lnb_misaligned(const void *p, int64_t to) { return (uintptr_t)p % (uintptr_t)to != 0; }

#endif

/* What the target-free files share: the target in use and the reason of a refusal. */
#ifndef LNB_INTERNAL_H
#define LNB_INTERNAL_H

#include "kernels.h"

/* The target in use; NULL when LNBENCH_TARGET or lnb_set_target named one that cannot run, with the reason set. */
const struct lnb_target *lnb_active(void);

/* Remembers why this thread's call is refused, and returns the status. */
int lnb_refuse(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

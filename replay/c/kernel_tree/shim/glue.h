/* Between the wrapped kernel files and glue.c. */
#ifndef GLUE_H
#define GLUE_H

#include "shim.h"

/* Before Linux 5.16. */
#ifdef SHIM_OLD_BALLOON_NAMES
#define xen_alloc_ballooned_pages alloc_xenballooned_pages
#define xen_free_ballooned_pages free_xenballooned_pages
#endif

long shim_balloon_state(void);
long shim_balloon_list(long max, long *frames);
bool shim_is_thread_queue(wait_queue_head_t *queue);
struct resource *shim_target_resource(void);
long shim_pool_list(long max, long *frames);
int shim_subsys_balloon_init(void);
int shim_early_unpopulated_init(void);
int shim_subsys_init(void);

#endif

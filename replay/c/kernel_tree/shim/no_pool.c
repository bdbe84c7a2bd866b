/* A kernel without the pool for this architecture: include/xen/xen.h maps its calls like this. */
#include "glue.h"

int xen_alloc_unpopulated_pages(unsigned int nr_pages, struct page **pages)
{
	return xen_alloc_ballooned_pages(nr_pages, pages);
}

void xen_free_unpopulated_pages(unsigned int nr_pages, struct page **pages)
{
	xen_free_ballooned_pages(nr_pages, pages);
}

struct resource *shim_target_resource(void)
{
	return NULL;
}

long shim_pool_list(long max, long *frames)
{
	return -1;
}

/* drivers/xen/unpopulated-alloc.c, whole and as it is, with a look at its static state. */
#include SHIM_SOURCE
#include "glue.h"

struct resource *shim_target_resource(void)
{
#ifdef SHIM_HAS_TARGET_RESOURCE
	return target_resource;
#else
	return &iomem_resource;
#endif
}

#ifdef SHIM_HAS_PAGE_LIST
long shim_pool_list(long max, long *frames)
{
	struct page *page;
	long count = 0;

	for (page = page_list; page && count < max; page = page->zone_device_data)
		frames[count++] = (long)page_to_pfn(page);
	return list_count;
}
#else
/* Another list than upstream's: what entered and is not with a caller is listed. */
long shim_pool_list(long max, long *frames)
{
	return -1;
}
#endif

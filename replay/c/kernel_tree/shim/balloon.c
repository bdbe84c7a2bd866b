/* drivers/xen/balloon.c, whole and as it is, with a look at its static state. */
#include SHIM_SOURCE
#include "glue.h"

long shim_balloon_state(void)
{
	return balloon_state;
}

long shim_balloon_list(long max, long *frames)
{
	struct page *page;
	long count = 0;

	list_for_each_entry(page, &ballooned_pages, lru) {
		if (count == max)
			break;
		if (!PageOffline(page))
			host_fail("a page on the balloon's list is not marked offline");
		frames[count++] = (long)page_to_pfn(page);
	}
	if (shim_node_state && shim_node_state != (long)balloon_stats.balloon_low)
		host_fail("NR_BALLOON_PAGES is not the length of the balloon's list");
	return balloon_stats.balloon_low;
}

bool shim_is_thread_queue(wait_queue_head_t *queue)
{
	return queue == &balloon_thread_wq;
}

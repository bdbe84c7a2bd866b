/* The functions of replay_allocator.h on top of the kernel's own; glue.c includes this. */

static struct page **room;
static long room_pages;

/* For a pool whose list is not upstream's: pages it has had, and those that callers have. */
static long pool_live;

static int64_t listed(void)
{
	long count;

	if (balloon_serves())
		return balloon_stats.balloon_low;
	count = shim_pool_list(0, NULL);
	return count < 0 ? pool_held - pool_live : count;
}

static int64_t reported(int64_t result)
{
	report->listed = listed();
	report->current_pages = balloon_stats.current_pages;
	report->target_pages = balloon_stats.target_pages;
	report->total_pages = balloon_stats.total_pages;
	report->unpopulated_pages = balloon_stats.target_unpopulated;
	report->state = shim_balloon_state();
	return result;
}

static struct page **pages_for(long pages)
{
	if (pages > room_pages) {
		host_free(room);
		room_pages = 2 * pages;
		room = host_zalloc(room_pages * sizeof(*room));
	}
	return room;
}

/* Frames got so far; a call that failed took those from the list, and put them back. */
static int64_t finished(int result, long nr_pages, struct page **pages, int64_t *frames)
{
	long got, back = 0;

	for (got = 0; got < nr_pages && pages[got]; got++) {
		frames[got] = page_to_pfn(pages[got]);
		if (result == 0 && PageOffline(pages[got]))
			host_fail("a page that is marked offline is handed out");
	}
	report->got = got;
	if (result < 0 && result != REPLAY_ASLEEP && result != REPLAY_ADDING)
		back = got;
	if (result == 0)
		pool_live += nr_pages;
	if (back) {
		replay_did(report, REPLAY_LIST_PUSH, back);
		replay_did(report, REPLAY_LIST_POP, back);
	}
	return reported(result);
}

static void sleeper_main(void *data)
{
	struct sleeper *sleeper = data;

	sleeper->result = xen_alloc_unpopulated_pages(sleeper->nr_pages, sleeper->pages);
}

static int64_t step(struct sleeper *sleeper, int64_t *frames)
{
	bool oldest = sleepers == sleeper;
	int64_t result;

	if (oldest)
		sleepers = sleeper->next;
	sleeper->next = NULL;
	running = sleeper;
	if (!host_resume(sleeper->task)) {
		struct sleeper **place = &sleepers;

		if (adders == sleeper)
			return finished(REPLAY_ADDING, sleeper->nr_pages, sleeper->pages, frames);
		while (!oldest && *place)
			place = &(*place)->next;
		sleeper->next = *place;
		*place = sleeper;
		return finished(REPLAY_ASLEEP, sleeper->nr_pages, sleeper->pages, frames);
	}
	result = finished(sleeper->result, sleeper->nr_pages, sleeper->pages, frames);
	host_task_free(sleeper->task);
	host_free(sleeper->pages);
	host_free(sleeper);
	return result;
}

int64_t replay_alloc(int64_t at, int64_t nr_pages, int64_t *frames)
{
	struct sleeper *sleeper;
	struct page **pages;

	now = at;
	if (!hotplug_unpopulated || !*hotplug_unpopulated) {
		pages = pages_for(nr_pages);
		memset(pages, 0, nr_pages * sizeof(*pages));
		running = NULL;
		return finished(xen_alloc_unpopulated_pages(nr_pages, pages), nr_pages, pages,
				frames);
	}
	sleeper = host_zalloc(sizeof(*sleeper));
	sleeper->pages = host_zalloc(nr_pages * sizeof(*pages));
	sleeper->nr_pages = nr_pages;
	sleeper->request = report->request;
	sleeper->task = host_task(sleeper_main, sleeper);
	return step(sleeper, frames);
}

int64_t replay_resume(int64_t at, int64_t nr_pages, int64_t *frames)
{
	struct sleeper **adder = &adders, *sleeper;

	now = at;
	while (*adder && (*adder)->request != report->request)
		adder = &(*adder)->next;
	if (!*adder)
		return step(sleepers, frames);
	sleeper = *adder;
	*adder = sleeper->next;
	sleeper->next = NULL;
	return step(sleeper, frames);
}

int64_t replay_free(int64_t at, int64_t nr_pages, const int64_t *frames)
{
	struct page **pages = pages_for(nr_pages);
	long k;

	now = at;
	pool_live -= nr_pages;
	for (k = 0; k < nr_pages; k++)
		pages[k] = pfn_to_page(frames[k]);
	xen_free_unpopulated_pages(nr_pages, pages);
	return reported(0);
}

int64_t replay_wake(int64_t at)
{
	now = at;
	if (!thread.adds)
		replay_did(report, REPLAY_THREAD_WAKE, 1);
	thread.go = thread.runs = true;
	host_resume(thread.task);
	thread.runs = false;
	if (thread.adds)
		return reported(REPLAY_ADDING);
	report->wake_at = thread.ready ? now : now + thread.timeout / HZ * 1000000000;
	return reported(0);
}

int64_t replay_target(int64_t at, int64_t pages)
{
	now = at;
	balloon_set_new_target(pages);
	return reported(0);
}

int64_t replay_list(int64_t max, int64_t *frames)
{
	return balloon_serves() ? shim_balloon_list(max, frames) : shim_pool_list(max, frames);
}

/* For the comparison with the models: first-level children of iomem_resource (0) or of the pool's
 * target resource (1) as start and last byte; how many there are.
 */
int64_t shim_tree(int64_t which, int64_t max, int64_t *rows)
{
	struct resource *child = NULL;
	long count = 0;

	if (!which)
		child = iomem_resource.child;
	else if (shim_target_resource())
		child = shim_target_resource()->child;
	for (; child; child = child->sibling, count++)
		if (count < max) {
			rows[2 * count] = child->start;
			rows[2 * count + 1] = child->end;
		}
	return count;
}

static long children(const struct resource *parent)
{
	const struct resource *child = parent ? parent->child : NULL;
	long count = 0;

	for (; child; child = child->sibling)
		count++;
	return count;
}

/* Resources in the trees, the pool's own apart from iomem_resource, and a dev_pagemap a region. */
static long objects_in_use(void)
{
	struct resource *target = shim_target_resource();

	return children(&iomem_resource) + pool_regions +
	       (target == &iomem_resource ? 0 : children(target));
}

/* For the comparison: kernel objects that were lost since replay_init(); 0 but for a leak. */
int64_t shim_lost(void)
{
	return objects - objects_in_use();
}

const char *replay_name(void)
{
	return SHIM_NAME;
}

/* -- the machine ------------------------------------------------------------------------------------ */
static void add_child(struct resource *root, const struct replay_range *range, const char *name)
{
	struct resource *child = host_zalloc(sizeof(*child));

	child->name = name;
	child->start = range->start;
	child->end = range->last;
	child->flags = IORESOURCE_MEM | IORESOURCE_BUSY;
	if (host_same(name, "System RAM") || host_same(name, "Extra memory"))
		child->flags |= IORESOURCE_SYSTEM_RAM;
	if (request_resource(root, child))
		host_fail("the machine's resources overlap");
}

/* A recording that starts in mid-life: what the pool took before is taken in Xen's resource too. */
static void add_taken(struct resource *target)
{
	long k, r;

	for (k = 0; k < machine->nr_iomem; k++)
		for (r = 0; r < machine->nr_regions; r++)
			if (host_same(machine->iomem_names[k], "Xen scratch") &&
			    machine->regions[r].start <= machine->iomem[k].start &&
			    machine->iomem[k].last <= machine->regions[r].last) {
				add_child(target, machine->iomem + k, "Xen scratch");
				break;
			}
}

static void set_clip(void)
{
	long k;

	e820_table = host_zalloc(sizeof(*e820_table) +
				 (machine->nr_clip + 1) * sizeof(struct e820_entry));
	if (!machine->nr_clip)
		return;
	shim_bios_start = machine->clip[0].start;
	shim_bios_end = machine->clip[0].last;
	for (k = 1; k < machine->nr_clip; k++)
		e820_table->entries[e820_table->nr_entries++] = (struct e820_entry){
			machine->clip[k].start,
			machine->clip[k].last - machine->clip[k].start + 1, 1
		};
}

/* What each mode's boot makes extra memory: xen_memory_setup() (arch/x86/xen/setup.c) the end of a PV
 * domain's map, pvh_reserve_extra_memory() (arch/x86/xen/enlighten_pvh.c, Linux 6.9) the UNUSABLE
 * ranges of a PVH dom0, up to EXTRA_MEM_RATIO times its RAM.
 */
static void set_extra_memory(void)
{
	const char *name = machine->mode == REPLAY_PV ? "Extra memory" : "Unusable memory";
	long k, pages = 0;

#ifndef SHIM_SEEDS_EXTRA_MEMORY
	if (machine->mode == REPLAY_PVH)
		return;
#endif
	if (machine->mode != REPLAY_PV && machine->mode != REPLAY_PVH)
		return;
	for (k = 0; k < machine->nr_iomem; k++)
		if (host_same(machine->iomem_names[k], "System RAM"))
			pages += (long)PFN_DOWN(machine->iomem[k].last + 1) -
				 (long)PFN_UP(machine->iomem[k].start);
	pages = machine->mode == REPLAY_PV ? machine->frames : 10 * pages;
	for (k = 0; k < machine->nr_iomem; k++) {
		long first = PFN_UP(machine->iomem[k].start);
		long end = PFN_DOWN(machine->iomem[k].last + 1);

		if (!host_same(machine->iomem_names[k], name))
			continue;
		end = min(end, first + pages);
		if (end <= first || nr_extra == XEN_EXTRA_MEM_MAX_REGIONS)
			continue;
		pages -= end - first;
		xen_extra_mem[nr_extra++] = (struct xen_memory_region){ first, end - first };
	}
	for (k = 0; k < nr_extra; k++)
		extra[k] = xen_extra_mem[k];
}

/* The pool of Linux 5.9 to 5.17 and since 6.9 has extra memory on its list from boot, the balloon
 * where the pool has not.
 */
static void tell_extra_memory(void)
{
	long k, listed = shim_pool_list(0, NULL);
	bool pooled = listed > 0 || (listed < 0 && nr_extra && !xen_extra_mem[0].n_pfns);

	for (k = 0; k < nr_extra && (pooled || balloon_serves()); k++) {
		replay_tell(report, REPLAY_SEED, extra[k].start_pfn, extra[k].n_pfns);
		replay_tell(report, REPLAY_ENTERED, extra[k].start_pfn, extra[k].n_pfns);
		pool_held += extra[k].n_pfns;
	}
}

/* max_pfn is set when extra memory is RAM of the map already. */
static unsigned long end_of_ram(void)
{
	unsigned long end = 0;
	long k;

	for (k = 0; k < machine->nr_iomem; k++)
		if (host_same(machine->iomem_names[k], "System RAM"))
			end = PFN_DOWN(machine->iomem[k].last + 1);
	for (k = 0; k < nr_extra; k++)
		end = max(end, extra[k].start_pfn + extra[k].n_pfns);
	return end;
}

static void set_options(void)
{
	long k;

	auto_online = true;
	for (k = 0; k < machine->nr_options; k++) {
		const char *text = machine->options[k];

		auto_online = host_number(text, "auto_online", auto_online);
		xen_scrub_pages = host_number(text, "scrub", xen_scrub_pages);
		balloon_stats.max_schedule_delay =
			host_number(text, "max_schedule_delay", balloon_stats.max_schedule_delay);
		balloon_stats.max_retry_count =
			host_number(text, "max_retry_count", balloon_stats.max_retry_count);
		if (hotplug_unpopulated)
			*hotplug_unpopulated =
				host_number(text, "hotplug_unpopulated", *hotplug_unpopulated);
	}
}

static void set_memory(void)
{
	long k, more = 0;

	for (k = 0; k < nr_extra; k++)
		more += extra[k].n_pfns;
	shim_pages = host_map((unsigned long)machine->frames * sizeof(struct page));
	ram_room = 2 * machine->nr_ram + machine->peak_pages + 2 * shim_section_pages + more;
	ram = host_zalloc(ram_room * sizeof(*ram));
	for (k = 0; k < machine->nr_ram; k++)
		ram[k] = machine->ram[k];
	ram_count = machine->nr_ram;
	available_pages = machine->available_pages;
	totalreserve_pages = machine->reserve_pages;
	start_info.nr_pages = machine->current_pages;
}

int64_t replay_init(const struct replay_machine *given, struct replay_report *to)
{
	long k, added;

	machine = given;
	report = to;
	shim_section_pages = machine->section_pages;
	if (machine->page_bytes != (int64_t)PAGE_SIZE)
		return -EINVAL;
	set_extra_memory();
	set_memory();
	iomem_resource.end = machine->iomem_last;
	for (k = 0; k < machine->nr_iomem; k++)
		add_child(&iomem_resource, machine->iomem + k, machine->iomem_names[k]);
	set_clip();
	max_pfn = end_of_ram();
	shim_early_unpopulated_init();
	if (shim_subsys_balloon_init() || !thread.task)
		return -ENODEV;
	shim_subsys_init();
	xen_scrub_pages = true;
	set_options();
	tell_extra_memory();
	if (shim_target_resource() && shim_target_resource() != &iomem_resource)
		add_taken(shim_target_resource());
	host_resume(thread.task);
	added = balloon_stats.total_pages - balloon_stats.current_pages;
	balloon_stats.current_pages = machine->current_pages;
	balloon_stats.target_pages = machine->target_pages;
	balloon_stats.total_pages = max(machine->total_pages, machine->current_pages + added);
	balloon_stats.target_unpopulated = machine->unpopulated_pages;
	objects = objects_in_use();
	domain_pages = machine->current_pages;
	report->wake_at = REPLAY_NEVER;
	report->per_page = 1;
	report->own_lock = !balloon_serves();
	return reported(0);
}

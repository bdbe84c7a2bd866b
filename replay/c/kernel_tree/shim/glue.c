/* The kernel's environment: pages, hypercalls, hot-add, the balloon thread, driven from outside.
 *
 * Every call that stands for work reports its primitive, so that the run's cost profile applies.
 * What an allocation takes from the kernel's files is theirs alone; what happens around them (when
 * memory is onlined, what Xen populates) follows mm/memory_hotplug.c, mm/memremap.c and
 * xen/common/memory.c, like the models.
 */
#include "glue.h"
#include "replay_allocator.h"

/* -- state ----------------------------------------------------------------------------------------- */
static const struct replay_machine *machine;
static struct replay_report *report;
static int64_t now;

struct page *shim_pages;
long shim_node_state;
unsigned long shim_section_pages, max_pfn, totalreserve_pages;
unsigned long xen_released_pages;
static struct start_info start_info;
struct start_info *xen_start_info = &start_info;
struct xen_memory_region xen_extra_mem[XEN_EXTRA_MEM_MAX_REGIONS];
bool acpi_disabled = true;

static long available_pages;
static int64_t *ram;
static long ram_count, ram_room;

static long pool_held, pool_regions;
static bool auto_online;
/* Extra memory as it was before any list took it. */
static struct xen_memory_region extra[XEN_EXTRA_MEM_MAX_REGIONS];
static long nr_extra;
static int *hotplug_unpopulated;

static long domain_pages; /* d->tot_pages */

/* What kzalloc() gave and kfree() did not take back. */
static long objects;

/* Init calls that not every kernel has; before Linux 5.17 the pool's is called init(). */
__weak int shim_early_unpopulated_init(void)
{
	return 0;
}

__weak int shim_subsys_init(void)
{
	return 0;
}

/* -- kernel objects ---------------------------------------------------------------------------------- */
void *shim_kalloc(size_t bytes)
{
	if (replay_fails(report, REPLAY_FAULT_KZALLOC))
		return NULL;
	objects++;
	return host_zalloc(bytes);
}

void shim_kfree(const void *p)
{
	objects -= !!p;
	host_free((void *)p);
}

/* -- locks ----------------------------------------------------------------------------------------- */
void mutex_lock(struct mutex *lock)
{
	if (lock->held)
		host_fail("a mutex is taken that is held already: deadlock");
	lock->held = 1;
}

void mutex_unlock(struct mutex *lock)
{
	if (!lock->held)
		host_fail("a mutex is released that is not held");
	lock->held = 0;
}

/* resource_lock is the only lock for writing: whoever takes it changes the resource tree. */
void write_lock(rwlock_t *lock)
{
	lock->held = 1;
	replay_did(report, REPLAY_RESOURCE_ADD, 1);
}

void write_unlock(rwlock_t *lock)
{
	lock->held = 0;
}

/* -- the balloon thread: a task that stops where it waits --------------------------------------------- */
static struct {
	struct host_task *task;
	int (*body)(void *);
	void *data;
	bool waits, go, ready, runs, adds;
	long timeout;
} thread;

static struct task_struct the_thread;

static void thread_main(void *unused)
{
	thread.body(thread.data);
}

struct task_struct *kthread_run(int (*body)(void *), void *data, const char *name)
{
	thread.body = body;
	thread.data = data;
	thread.task = host_task(thread_main, NULL);
	return &the_thread;
}

void shim_sleep_begin(wait_queue_head_t *queue, long timeout)
{
	thread.timeout = timeout;
	thread.waits = true;
	thread.go = false;
	report->sleep_credit = (int64_t)balloon_stats.target_pages -
			       (int64_t)balloon_stats.current_pages;
}

bool shim_sleep(bool condition)
{
	if (thread.go) {
		thread.waits = thread.go = false;
		return true;
	}
	thread.ready = condition;
	host_yield();
	if (thread.go) {
		thread.waits = thread.go = false;
		return true;
	}
	return false;
}

/* The thread looks at its condition again; it runs when the engine has the lock for it. */
static void wake_thread(void)
{
	if (!thread.waits || report->wake_at <= now)
		return;
	host_resume(thread.task);
	if (thread.ready)
		report->wake_at = now;
}

/* -- allocations that sleep --------------------------------------------------------------------------- */
struct sleeper {
	struct sleeper *next;
	struct host_task *task;
	struct page **pages;
	long nr_pages;
	int64_t request;
	int result;
	wait_queue_head_t *queue;
	bool woken;
};
static struct sleeper *sleepers, *adders, *running;

void shim_sleep_for_pages(wait_queue_head_t *queue)
{
	struct sleeper *sleeper = running;

	if (!sleeper)
		host_fail("the kernel's code sleeps where nothing can wake it");
	sleeper->queue = queue;
	sleeper->woken = false;
	while (!sleeper->woken)
		host_yield();
}

bool shim_signal_pending(void)
{
	return replay_fails(report, REPLAY_FAULT_SIGNAL);
}

void wake_up(wait_queue_head_t *queue)
{
	struct sleeper *sleeper;

	if (shim_is_thread_queue(queue))
		wake_thread();
	for (sleeper = sleepers; sleeper; sleeper = sleeper->next)
		sleeper->woken |= sleeper->queue == queue;
}

/* add_memory_resource() runs without balloon_mutex: others have it until the memory is there. */
static void shim_let_go(void)
{
	if (!report->may_let_go)
		return;
	if (thread.runs) {
		thread.adds = true;
		host_yield();
		thread.adds = false;
		return;
	}
	running->next = adders;
	adders = running;
	host_yield();
}

/* Whether the balloon's list is what allocations come from: its pages are then the allocator's. */
static bool balloon_serves(void)
{
	return !shim_target_resource();
}

/* -- pages ----------------------------------------------------------------------------------------- */
struct page *alloc_page(gfp_t gfp)
{
	if (replay_fails(report, REPLAY_FAULT_ALLOC_PAGE) || ram_count <= 0)
		return NULL;
	available_pages--;
	replay_did(report, REPLAY_PAGE_ALLOC, 1);
	replay_did(report, REPLAY_LIST_PUSH, 1);
	ram_count--;
	if (balloon_serves())
		replay_tell(report, REPLAY_ENTERED, ram[ram_count], 1);
	return pfn_to_page(ram[ram_count]);
}

void free_reserved_page(struct page *page)
{
	if (PageOffline(page))
		host_fail("a page that is marked offline is freed as RAM");
	if (page->flags & SHIM_PG_NO_P2M)
		host_fail("a page without a machine frame is freed as RAM");
	available_pages++;
	replay_did(report, REPLAY_PAGE_FREE, 1);
	replay_did(report, REPLAY_LIST_POP, 1);
	if (balloon_serves())
		replay_tell(report, REPLAY_LEFT, page_to_pfn(page), 1);
	if (ram_count < ram_room)
		ram[ram_count++] = page_to_pfn(page);
}

void clear_highpage(struct page *page)
{
	replay_did(report, REPLAY_SCRUB, 1);
}

void flush_tlb_all(void)
{
	replay_did(report, REPLAY_TLB_FLUSH, 1);
}

long si_mem_available(void)
{
	return available_pages;
}

/* balloon_init() refuses a guest without RAM; replay_init() sets the statistics after it. */
unsigned long get_num_physpages(void)
{
	return machine->total_pages + 1;
}

/* -- ZONE_DEVICE and memory hot-add -------------------------------------------------------------------- */
static struct range hot_added[1 << 16];
static long nr_hot_added;
static online_page_callback_t online_page;
static struct notifier_block *memory_notifier;

struct range mhp_get_pluggable_range(bool need_mapping)
{
	return (struct range){ machine->pluggable_first, machine->pluggable_last };
}

/* On PV page tables are built of what the p2m says: nothing, or the identity of a device. */
static void check_p2m(unsigned long pfn, long pages)
{
	for (; xen_pv_domain() && pages > 0; pfn++, pages--)
		if (!(shim_pages[pfn].flags & SHIM_PG_NO_P2M))
			host_fail("memory is added whose p2m entries are not invalid");
}

/* mem_hotplug_begin(), then init_memory_mapping(): both ways to add memory do the two. */
static void mapped(long pages)
{
	replay_did(report, REPLAY_GRACE_PERIOD, 1);
	if (xen_pv_domain())
		replay_did(report, REPLAY_DIRECT_MAP, pages);
}

void *memremap_pages(struct dev_pagemap *pgmap, int nid)
{
	u64 start = pgmap->range.start, bytes = pgmap->range.end - start + 1;
	long pages = bytes >> PAGE_SHIFT;

	if (replay_fails(report, REPLAY_FAULT_MEMREMAP))
		return ERR_PTR(-ENOMEM);
	/* memremap_pages() -> pagemap_range() -> mhp_range_allowed() */
	if ((int64_t)start < machine->pluggable_first ||
	    (int64_t)pgmap->range.end > machine->pluggable_last)
		return ERR_PTR(-EINVAL);
	if (PFN_DOWN(pgmap->range.end) >= (u64)machine->frames)
		host_fail("the kernel took a region beyond the frames that are tracked");
	if (pgmap->nr_range != 1 || pgmap->type != MEMORY_DEVICE_GENERIC)
		host_fail("memremap_pages() of other than one range of generic pages");
	check_p2m(PFN_DOWN(start), pages);
	replay_did(report, REPLAY_MEMMAP_PAGE, pages);
	replay_did(report, REPLAY_SECTION_MAP, DIV_ROUND_UP(pages, (long)PAGES_PER_SECTION));
	mapped(pages);
	replay_did(report, REPLAY_LIST_PUSH, pages);
	replay_tell(report, REPLAY_POOL_SECTION, PFN_DOWN(start), pages);
	replay_tell(report, REPLAY_ENTERED, PFN_DOWN(start), pages);
	pool_held += pages;
	pool_regions++;
	return __va(start);
}

/* add_memory_resource() and, with auto_online_blocks, online_pages() block by block. Where it fails,
 * it does so before it has let go of anything.
 */
int add_memory_resource(int nid, struct resource *resource, mhp_t flags)
{
	unsigned long first = PFN_DOWN(resource->start), pfn, order = 0;
	long pages = resource_size(resource) >> PAGE_SHIFT;

	if (replay_fails(report, REPLAY_FAULT_ADD_MEMORY))
		return -ENOMEM;
	if (PFN_DOWN(resource->end) >= (u64)machine->frames)
		host_fail("the kernel hot-added memory beyond the frames that are tracked");
	check_p2m(first, pages);
	if (nr_hot_added == ARRAY_SIZE(hot_added))
		host_fail("more hot-added regions than the harness has room for");
	hot_added[nr_hot_added++] = (struct range){ first, first + pages - 1 };
	replay_did(report, REPLAY_HOTPLUG_SECTION, pages / (long)PAGES_PER_SECTION);
	replay_did(report, REPLAY_HOTPLUG_PAGE, pages);
	mapped(pages);
	if (flags & MHP_MERGE_RESOURCE)
		merge_system_ram_resource(resource);
	shim_let_go();
	replay_tell(report, REPLAY_HOTPLUG_SECTIONS, first, pages);
	if (!auto_online)
		return 0;
	replay_did(report, REPLAY_LIST_PUSH, pages);
	if (balloon_serves())
		replay_tell(report, REPLAY_ENTERED, first, pages);
	while (order < 10 && PAGES_PER_SECTION >> (order + 1))
		order++;
	for (pfn = first; pfn < first + pages; pfn += 1UL << order) {
		online_page(pfn_to_page(pfn), order);
		if (!((pfn + (1UL << order)) % PAGES_PER_SECTION))
			memory_notifier->notifier_call(memory_notifier, MEM_ONLINE, NULL);
	}
	return 0;
}

int set_online_page_callback(online_page_callback_t callback)
{
	online_page = callback;
	return 0;
}

int register_memory_notifier(struct notifier_block *nb)
{
	memory_notifier = nb;
	return 0;
}

void shim_sysctl(const struct ctl_table *table, long entries)
{
	for (; entries > 0 && table->procname; table++, entries--) {
		if (host_same(table->procname, "hotplug_unpopulated"))
			hotplug_unpopulated = table->data;
		if (table->child)
			shim_sysctl(table->child, SHIM_ENDED_BY_NAME);
	}
}

/* -- resource tree, device tree, e820 ------------------------------------------------------------------- */
struct e820_table *e820_table;
bool pci_use_e820 = true;
u64 shim_bios_start = ~0ULL, shim_bios_end;
#ifdef SHIM_X86
void kernel_arch_remove_reservations(struct resource *avail);
#endif

/* __find_resource() calls this once for each gap it looks at. */
void arch_remove_reservations(struct resource *avail)
{
	replay_did(report, REPLAY_RESOURCE_STEP, 1);
#ifdef SHIM_X86
	kernel_arch_remove_reservations(avail);
#endif
}

static struct device_node xen_node;

struct device_node *of_find_compatible_node(struct device_node *from, const char *type,
					    const char *compatible)
{
	return &xen_node;
}

/* Region 0 of the hypervisor node is the grant table's. */
const __be32 *of_get_address(struct device_node *node, int index, u64 *size, unsigned int *flags)
{
	static const __be32 cell;

	return index <= machine->nr_regions ? &cell : NULL;
}

int of_address_to_resource(struct device_node *node, int index, struct resource *resource)
{
	if (index < 1 || index > machine->nr_regions)
		return -EINVAL;
	resource->start = machine->regions[index - 1].start;
	resource->end = machine->regions[index - 1].last;
	resource->flags = IORESOURCE_MEM;
	return 0;
}

/* -- Xen ------------------------------------------------------------------------------------------- */
bool xen_pv_domain(void)
{
	return machine->mode == REPLAY_PV;
}

/* An HVM domain is a guest. */
bool xen_initial_domain(void)
{
	return machine->mode != REPLAY_HVM;
}

bool xen_feature(int feature)
{
	return !xen_pv_domain();
}

void xen_balloon_init(void)
{
}

bool shim_write_p2m(unsigned long pfn, unsigned long mfn)
{
	if (pfn >= (unsigned long)machine->frames)
		return true;
	if (mfn == INVALID_P2M_ENTRY)
		shim_pages[pfn].flags |= SHIM_PG_NO_P2M;
	else
		shim_pages[pfn].flags &= ~(unsigned long)SHIM_PG_NO_P2M;
	return true;
}

bool shim_set_p2m(unsigned long pfn, unsigned long mfn)
{
	if (mfn == INVALID_P2M_ENTRY) {
		if (replay_fails(report, REPLAY_FAULT_SET_P2M))
			return false;
		replay_did(report, REPLAY_P2M_INVALIDATE, 1);
	}
	return shim_write_p2m(pfn, mfn);
}

/* Part of what each page of an allocation costs: the engine counts it. */
int xen_alloc_p2m_entry(unsigned long pfn)
{
	return replay_fails(report, REPLAY_FAULT_P2M_ENTRY) ? -ENOMEM : 0;
}

int HYPERVISOR_update_va_mapping(unsigned long va, pte_t pte, unsigned long flags)
{
	replay_did(report, pte.value ? REPLAY_VA_UPDATE : REPLAY_VA_RESET, 1);
	return 0;
}

/* A direct-mapped domain gets gfn == mfn, and only if that page is its own already; any other one a
 * page that Xen allocates, as long as there is one and d->max_pages is not reached.
 */
static bool populatable(unsigned long pfn, long done)
{
	long k, most = report->faults->max_pages;

	if (!machine->direct_mapped)
		return (!most || domain_pages + done < most) &&
		       !replay_fails(report, REPLAY_FAULT_POPULATE);
	for (k = 0; k < nr_hot_added; k++)
		if (hot_added[k].start <= pfn && pfn <= hot_added[k].end)
			return false;
	return true;
}

long HYPERVISOR_memory_op(unsigned int op, void *argument)
{
	struct xen_memory_reservation *reservation = argument;
	long extents, k;

	/* balloon_init() since Linux 6.12; replay_init() sets the statistics after it. */
	if (op == XENMEM_current_reservation)
		return machine->current_pages + 1;
	if (op != XENMEM_decrease_reservation && op != XENMEM_populate_physmap)
		return -ENOSYS;
	replay_did(report, REPLAY_HYPERCALL, 1);
	extents = reservation->nr_extents;
	if (1UL << reservation->extent_order != XEN_PFN_PER_PAGE)
		host_fail("an extent that is no page: the harness knows page by page only");
	for (k = 0; k < extents; k++) {
		unsigned long pfn = reservation->extent_start[k] / XEN_PFN_PER_PAGE;

		if (op == XENMEM_populate_physmap && !populatable(pfn, k))
			break;
		if (op == XENMEM_decrease_reservation && xen_pv_domain() &&
		    !(shim_pages[pfn].flags & SHIM_PG_NO_P2M))
			host_fail("a page that the p2m still has is given to Xen");
		if (op == XENMEM_decrease_reservation && !xen_pv_domain())
			replay_tell(report, REPLAY_BROKEN, pfn, 1);
	}
	domain_pages += op == XENMEM_populate_physmap ? k : -k;
	if (op == XENMEM_decrease_reservation) {
		replay_did(report, REPLAY_EXTENT_DECREASE, k);
		replay_tell(report, REPLAY_GIVEN, 0, k);
	} else if (k) {
		replay_did(report, REPLAY_EXTENT_POPULATE, k);
		replay_tell(report, REPLAY_GIVEN, 0, -k);
	}
	return k;
}

#include "entry.c" /* one translation unit: the functions of replay_allocator.h */

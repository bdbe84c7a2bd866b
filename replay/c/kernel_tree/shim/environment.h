/* The kernel's environment as the files under test call it: what glue.c and host.c do, by topic. */
#ifndef ENVIRONMENT_H
#define ENVIRONMENT_H

/* -- memory -------------------------------------------------------------------------------------- */
enum { GFP_KERNEL = 1, GFP_USER = 2, GFP_HIGHUSER = 4, __GFP_NOWARN = 8, __GFP_NORETRY = 16,
       __GFP_NOMEMALLOC = 32, GFP_ATOMIC = 64, __GFP_RETRY_MAYFAIL = 128, __GFP_ZERO = 256 };
/* May fail by option, and are counted: what is neither freed nor in use is a leak. */
void *shim_kalloc(size_t bytes);
void shim_kfree(const void *p);
#define kzalloc(bytes, gfp) shim_kalloc(bytes)
#define kmalloc(bytes, gfp) shim_kalloc(bytes)
#define kcalloc(n, bytes, gfp) shim_kalloc((n) * (bytes))
#define kmalloc_array(n, bytes, gfp) shim_kalloc((n) * (bytes))
#define kvcalloc(n, bytes, gfp) shim_kalloc((n) * (bytes))
#define kvrealloc(p, bytes, gfp) host_realloc(p, bytes)
/* linux/slab.h since 7.0: named by what is wanted, a type or a thing of that type */
#define kzalloc_obj(of, ...) ((__typeof__(of) *)shim_kalloc(sizeof(of)))
#define kzalloc_objs(of, n, ...) ((__typeof__(of) *)shim_kalloc((n) * sizeof(of)))
#define kmalloc_obj(of, ...) kzalloc_obj(of)
#define kmalloc_objs(of, n, ...) kzalloc_objs(of, n)
#define kvzalloc_obj(of, ...) kzalloc_obj(of)
#define kvzalloc_objs(of, n, ...) kzalloc_objs(of, n)
#define kvmalloc_obj(of, ...) kzalloc_obj(of)
#define kvmalloc_objs(of, n, ...) kzalloc_objs(of, n)
#define kzalloc_node(bytes, gfp, node) shim_kalloc(bytes)
#define kfree(p) shim_kfree(p)
#define kvfree(p) shim_kfree(p)
void *memset(void *at, int value, size_t bytes);
void *memcpy(void *to, const void *from, size_t bytes);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);
char *strstr(const char *text, const char *part);

/* -- locks: one task runs at a time, so a lock that is held is a deadlock ------------------------- */
struct mutex {
	int held;
};
#define DEFINE_MUTEX(name) struct mutex name
void mutex_lock(struct mutex *lock);
void mutex_unlock(struct mutex *lock);
typedef struct {
	int held;
} rwlock_t, spinlock_t;
#define DEFINE_RWLOCK(name) rwlock_t name
#define DEFINE_SPINLOCK(name) spinlock_t name
#define read_lock(lock) ((void)(lock))
#define read_unlock(lock) ((void)(lock))
void write_lock(rwlock_t *lock);
void write_unlock(rwlock_t *lock);
#define spin_lock(lock) ((void)(lock))
#define spin_unlock(lock) ((void)(lock))
#define spin_lock_irqsave(lock, flags) ((void)(lock), (void)(flags))
#define spin_unlock_irqrestore(lock, flags) ((void)(lock), (void)(flags))

/* -- linux/cleanup.h: what is undone where a name's scope ends ------------------------------------- */
static inline struct mutex *shim_take_mutex(struct mutex *lock)
{
	mutex_lock(lock);
	return lock;
}
static inline void shim_drop_mutex(struct mutex **lock)
{
	mutex_unlock(*lock);
}
static inline rwlock_t *shim_take_write_lock(rwlock_t *lock)
{
	write_lock(lock);
	return lock;
}
static inline void shim_drop_write_lock(rwlock_t **lock)
{
	write_unlock(*lock);
}
static inline rwlock_t *shim_take_read_lock(rwlock_t *lock)
{
	return lock;
}
static inline void shim_drop_read_lock(rwlock_t **lock)
{
}
static inline spinlock_t *shim_take_spinlock(spinlock_t *lock)
{
	return lock;
}
static inline void shim_drop_spinlock(spinlock_t **lock)
{
}
#define shim_take_spinlock_irq(lock) shim_take_spinlock(lock)
#define shim_drop_spinlock_irq shim_drop_spinlock
#define shim_take_spinlock_irqsave(lock) shim_take_spinlock(lock)
#define shim_drop_spinlock_irqsave shim_drop_spinlock
/* The types that a guard of each kind holds; clang before 15 takes no __auto_type with a cleanup. */
typedef struct mutex *shim_held_by_mutex;
typedef rwlock_t *shim_held_by_write_lock, *shim_held_by_read_lock;
typedef spinlock_t *shim_held_by_spinlock, *shim_held_by_spinlock_irq,
	*shim_held_by_spinlock_irqsave;
#define SHIM_HELD(name) CONCATENATE(shim_held_, __LINE__) \
	__attribute__((cleanup(shim_drop_##name), unused)) = shim_take_##name
#define guard(name) shim_held_by_##name SHIM_HELD(name)
#define scoped_guard(name, lock) \
	for (bool shim_once = true; shim_once; shim_once = false) \
		for (shim_held_by_##name SHIM_HELD(name)(lock); shim_once; shim_once = false)
static inline void shim_drop_kfree(void *at)
{
	shim_kfree(*(void **)at);
}
#define __free(name) __attribute__((cleanup(shim_drop_##name)))
#define no_free_ptr(p) ({ __auto_type _p = (p); (p) = NULL; _p; })
#define return_ptr(p) return no_free_ptr(p)

/* -- wait queues and the one kernel thread -------------------------------------------------------- */
typedef struct wait_queue_head {
	int unused;
} wait_queue_head_t;
#define DECLARE_WAIT_QUEUE_HEAD(name) wait_queue_head_t name
#define HZ 250
#define jiffies 0UL
#define time_is_before_eq_jiffies(x) false
void wake_up(wait_queue_head_t *queue);
#define wake_up_interruptible(queue) wake_up(queue)
void shim_sleep_begin(wait_queue_head_t *queue, long timeout);
/* Whether the sleep is over; tells what the condition is worth now. */
bool shim_sleep(bool condition);
#define wait_event_freezable_timeout(queue, condition, timeout) ({ \
	shim_sleep_begin(&(queue), timeout); \
	while (!shim_sleep(condition)) \
		; \
	1; })
#define wait_event_interruptible_timeout wait_event_freezable_timeout
/* An allocation asleep: it goes on when it was woken and the engine resumes it. */
void shim_sleep_for_pages(wait_queue_head_t *queue);
bool shim_signal_pending(void);
#define wait_event(queue, condition) do { \
	while (!(condition)) \
		shim_sleep_for_pages(&(queue)); \
	} while (0)
/* As ___wait_event(): a signal counts only where the condition does not hold. */
#define wait_event_interruptible(queue, condition) ({ \
	int _ended = !(condition) && shim_signal_pending() ? -ERESTARTSYS : 0; \
	if (!_ended) \
		wait_event(queue, condition); \
	_ended; })

struct task_struct {
	int unused;
};
struct task_struct *kthread_run(int (*body)(void *), void *data, const char *name);
#define kthread_should_stop() false
#define set_freezable() ((void)0)
#define cond_resched() ((void)0)
#define schedule_timeout_interruptible(timeout) ((void)0)

/* -- pages --------------------------------------------------------------------------------------- */
#define PAGE_SHIFT SHIM_PAGE_SHIFT
#define PAGE_SIZE (1UL << PAGE_SHIFT)
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define PAGE_ALIGN(x) ALIGN(x, PAGE_SIZE)
#define PFN_DOWN(x) ((x) >> PAGE_SHIFT)
#define PFN_UP(x) (((x) + PAGE_SIZE - 1) >> PAGE_SHIFT)
#define PFN_PHYS(x) ((phys_addr_t)(x) << PAGE_SHIFT)
#define NUMA_NO_NODE (-1)
extern unsigned long shim_section_pages;
#define PAGES_PER_SECTION shim_section_pages
#define PA_SECTION_SHIFT (ilog2(shim_section_pages) + PAGE_SHIFT)
extern unsigned long max_pfn;
#define PHYSMEM_END (~(resource_size_t)0)

struct page {
	union {
		struct list_head lru;
		void *zone_device_data;
		unsigned long private;
	};
	unsigned long flags;
};
extern struct page *shim_pages;
extern long shim_node_state; /* of the only item that is counted: NR_BALLOON_PAGES */
#define inc_node_page_state(page, item) ((void)(page), (void)shim_node_state++)
#define dec_node_page_state(page, item) ((void)(page), (void)shim_node_state--)
#define page_to_pfn(page) ((unsigned long)((page) - shim_pages))
#define pfn_to_page(pfn) (shim_pages + (pfn))
#define PAGE_OFFSET 0xffff000000000000UL
#define __va(phys) ((void *)((unsigned long)(phys) + PAGE_OFFSET))
#define __pa(va) ((unsigned long)(va) - PAGE_OFFSET)
#define virt_to_page(va) pfn_to_page(__pa(va) >> PAGE_SHIFT)
#define virt_addr_valid(va) true
#define virt_to_head_page(va) ((struct page *)NULL)
#define page_to_virt(page) __va(PFN_PHYS(page_to_pfn(page)))
#define PageSlab(page) true
#define PageHighMem(page) false
enum { SHIM_PG_OFFLINE = 1, SHIM_PG_NO_P2M = 2 };
static inline bool PageOffline(struct page *page)
{
	return page->flags & SHIM_PG_OFFLINE;
}
static inline void __SetPageOffline(struct page *page)
{
	page->flags |= SHIM_PG_OFFLINE;
}
static inline void __ClearPageOffline(struct page *page)
{
	page->flags &= ~(unsigned long)SHIM_PG_OFFLINE;
}
struct page *alloc_page(gfp_t gfp);
void free_reserved_page(struct page *page);
void clear_highpage(struct page *page);
#define adjust_managed_page_count(page, count) ((void)(page))
#define kmap_flush_unused() ((void)0)
void flush_tlb_all(void);
long si_mem_available(void);
extern unsigned long totalreserve_pages;
unsigned long get_num_physpages(void);

/* -- ZONE_DEVICE and memory hot-add --------------------------------------------------------------- */
struct range mhp_get_pluggable_range(bool need_mapping);
enum { MEMORY_DEVICE_PRIVATE = 1, MEMORY_DEVICE_FS_DAX, MEMORY_DEVICE_GENERIC };
struct dev_pagemap {
	int type;
	int flags;
	void *owner;
	int nr_range;
	union {
		struct range range;
		struct range ranges[1];
	};
};
void *memremap_pages(struct dev_pagemap *pgmap, int nid);
typedef int mhp_t;
#define MHP_MERGE_RESOURCE BIT(0)
#define MEMHP_MERGE_RESOURCE MHP_MERGE_RESOURCE /* before Linux 5.11 */
#define MHP_NONE 0
struct resource;
int add_memory_resource(int nid, struct resource *resource, mhp_t flags);
#define memory_add_physaddr_to_nid(start) 0
#define lock_device_hotplug() ((void)0)
#define unlock_device_hotplug() ((void)0)
typedef void (*online_page_callback_t)(struct page *page, unsigned int order);
int set_online_page_callback(online_page_callback_t callback);
struct notifier_block {
	int (*notifier_call)(struct notifier_block *nb, unsigned long action, void *data);
	struct notifier_block *next;
	int priority;
};
enum { NOTIFY_OK = 1, MEM_ONLINE = 1 };
int register_memory_notifier(struct notifier_block *nb);

struct ctl_table {
	const char *procname;
	void *data;
	int maxlen;
	umode_t mode;
	struct ctl_table *child;
	void *proc_handler, *extra1, *extra2;
};
/* Where the sysctl's value lives is read from the table, so that its name in the file is free. Tables
 * end with an entry without a name before Linux 6.11, and are as long as they are since.
 */
void shim_sysctl(const struct ctl_table *table, long entries);
#define SHIM_ENDED_BY_NAME 0x7fffffffL
#define register_sysctl_table(table) shim_sysctl(table, SHIM_ENDED_BY_NAME)
#define register_sysctl_init(path, table) shim_sysctl(table, ARRAY_SIZE(table))
#define register_sysctl(path, table) (shim_sysctl(table, ARRAY_SIZE(table)), (void *)NULL)

/* -- device tree and e820 -------------------------------------------------------------------------- */
struct device_node {
	int unused;
};
extern bool acpi_disabled;
struct device_node *of_find_compatible_node(struct device_node *from, const char *type,
					    const char *compatible);
#define of_node_put(node) ((void)(node))
const __be32 *of_get_address(struct device_node *node, int index, u64 *size, unsigned int *flags);
int of_address_to_resource(struct device_node *node, int index, struct resource *resource);

struct e820_entry {
	u64 addr, size;
	int type;
} __attribute__((packed));
struct e820_table {
	u32 nr_entries;
	struct e820_entry entries[];
};
extern struct e820_table *e820_table;
extern bool pci_use_e820;
/* The machine's own first clip range stands for the BIOS area. */
extern u64 shim_bios_start, shim_bios_end;
#define BIOS_ROM_BASE shim_bios_start
#define BIOS_ROM_END shim_bios_end
void arch_remove_reservations(struct resource *avail);

/* -- Xen ------------------------------------------------------------------------------------------- */
typedef unsigned long xen_pfn_t;
typedef unsigned long xen_ulong_t;
typedef u16 domid_t;
#define DOMID_SELF 0x7ff0
#define GUEST_HANDLE(name) __guest_handle_##name
#define DEFINE_GUEST_HANDLE_STRUCT(name) typedef struct name *GUEST_HANDLE(name)
#define DEFINE_GUEST_HANDLE(name) typedef name *GUEST_HANDLE(name)
#define set_xen_guest_handle(handle, value) ((handle) = (value))
DEFINE_GUEST_HANDLE(xen_pfn_t);
DEFINE_GUEST_HANDLE(xen_ulong_t);
DEFINE_GUEST_HANDLE(int);
typedef void *GUEST_HANDLE(void);

#define XEN_PAGE_SHIFT 12
#define XEN_PAGE_SIZE (1UL << XEN_PAGE_SHIFT)
#define XEN_PFN_PER_PAGE (PAGE_SIZE / XEN_PAGE_SIZE)
#define page_to_xen_pfn(page) (page_to_pfn(page) * XEN_PFN_PER_PAGE)
#define xen_page_to_gfn(page) page_to_xen_pfn(page)
#define INVALID_P2M_ENTRY (~0UL)
enum { XENFEAT_auto_translated_physmap = 2 };
bool xen_feature(int feature);
/* The latter writes to an entry that is there, which cannot fail. */
bool shim_set_p2m(unsigned long pfn, unsigned long mfn);
bool shim_write_p2m(unsigned long pfn, unsigned long mfn);
#define set_phys_to_machine(pfn, mfn) shim_set_p2m(pfn, mfn)
#define __set_phys_to_machine(pfn, mfn) shim_write_p2m(pfn, mfn)
int xen_alloc_p2m_entry(unsigned long pfn);
typedef struct {
	unsigned long value;
} pte_t;
#define __pte_ma(x) ((pte_t){ x })
#define mfn_pte(mfn, prot) ((pte_t){ ((mfn) << PAGE_SHIFT) | 1 })
#define PAGE_KERNEL 0
int HYPERVISOR_update_va_mapping(unsigned long va, pte_t pte, unsigned long flags);
long HYPERVISOR_memory_op(unsigned int op, void *argument);

#define xen_domain() 1
bool xen_initial_domain(void);
bool xen_pv_domain(void);
#define xen_pvh_domain() (!xen_pv_domain())
struct start_info {
	unsigned long nr_pages;
};
extern struct start_info *xen_start_info;
extern unsigned long xen_released_pages;
#ifdef CONFIG_XEN_UNPOPULATED_ALLOC
extern unsigned long xen_unpopulated_pages;
#else
#define xen_unpopulated_pages 0UL
#endif
struct xen_memory_region {
	unsigned long start_pfn, n_pfns;
};
/* The kernel has 128 places; a machine with more UNUSABLE ranges loses those beyond. */
#define XEN_EXTRA_MEM_MAX_REGIONS 128
extern struct xen_memory_region xen_extra_mem[XEN_EXTRA_MEM_MAX_REGIONS];
void xen_balloon_init(void);
int arch_xen_unpopulated_init(struct resource **res);
int xen_alloc_unpopulated_pages(unsigned int nr_pages, struct page **pages);
void xen_free_unpopulated_pages(unsigned int nr_pages, struct page **pages);

#endif

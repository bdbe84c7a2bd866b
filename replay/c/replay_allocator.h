/* The C form of an allocator under test: what a shared object given to `replay run` exports.
 *
 * replay_init() once, then replay_alloc(), replay_free() and the optional ones in the order in which
 * the modelled lock is held; one call at a time, from one thread, in a process of its own.
 *
 * Frames are guest-physical page frame numbers, one per page, from 0 to below machine->frames.
 * Addresses are bytes, ranges inclusive, times ns of modelled time. Errors are negative Linux errno
 * values. Everything beyond the list operations of a successful call is reported with the helpers at
 * the end, and priced by the cost profile of the run.
 */
#ifndef REPLAY_ALLOCATOR_H
#define REPLAY_ALLOCATOR_H

#include <stdint.h>

#define REPLAY_VERSION 4 /* goes up whenever a struct, an enum or a call changes */
#define REPLAY_ASLEEP (-11) /* replay_alloc(), replay_resume(): the caller sleeps for free pages */
/* The same, once hot-added memory is there: the lock is let go of until then, if it may be. Report
 * REPLAY_HOTPLUG_PAGE, _SECTION, REPLAY_GRACE_PERIOD and _DIRECT_MAP before: their cost is how long
 * it takes.
 */
#define REPLAY_ADDING (-512)
#define REPLAY_NEVER (INT64_C(1) << 62)

enum replay_arch { REPLAY_X86, REPLAY_ARM64 };
enum replay_mode { REPLAY_PV, REPLAY_PVH, REPLAY_ARM, REPLAY_HVM };

struct replay_range {
	int64_t start, last; /* bytes, both inside */
};

/* The machine as the allocator's kernel sees it. Valid until the process ends. */
struct replay_machine {
	int64_t arch, mode;                /* enum replay_arch, enum replay_mode */
	int64_t direct_mapped;             /* whether gfn == mfn for dom0's own RAM */
	int64_t page_bytes, section_pages; /* pages per memory section (SECTION_SIZE_BITS) */
	int64_t frames;                    /* every frame number is below this */
	int64_t iomem_last;                /* last byte of iomem_resource */
	int64_t pluggable_first, pluggable_last; /* mhp_get_pluggable_range(true), bytes */
	/* pages: balloon_stats at the start, si_mem_available(), totalreserve_pages */
	int64_t current_pages, target_pages, total_pages, unpopulated_pages;
	int64_t available_pages, reserve_pages;
	int64_t peak_pages; /* pages live at once, at most */
	int64_t nr_iomem;   /* first-level children of iomem_resource, ascending */
	const struct replay_range *iomem;
	const char *const *iomem_names;
	int64_t nr_clip; /* cut from a candidate by arch_remove_reservations(), in that order */
	const struct replay_range *clip;
	int64_t nr_regions; /* ranges the hypervisor names as unused, in its order, unchecked */
	const struct replay_range *regions;
	int64_t nr_ram; /* dom0's RAM frames that alloc_page() may hand out; the last goes first */
	const int64_t *ram;
	int64_t nr_options; /* of `--set NAME.option=value`, as "option=value" */
	const char *const *options;
};

/* Work beyond list operations; the names are those of the cost profiles. */
enum replay_work {
	REPLAY_RESOURCE_STEP,   /* a gap of a resource tree looked at */
	REPLAY_RESOURCE_ADD,    /* a resource inserted or removed */
	REPLAY_MEMMAP_PAGE,     /* a struct page initialised by memremap_pages() */
	REPLAY_SECTION_MAP,     /* a section mapped by memremap_pages() */
	REPLAY_HOTPLUG_PAGE,    /* a struct page initialised by add_memory() */
	REPLAY_HOTPLUG_SECTION, /* a section added by add_memory() */
	REPLAY_GRACE_PERIOD,    /* mem_hotplug_begin(): once per region mapped or added */
	REPLAY_DIRECT_MAP,      /* PV: HYPERVISOR_mmu_update() for a page of the direct map */
	REPLAY_PAGE_ALLOC,
	REPLAY_PAGE_FREE,
	REPLAY_SCRUB,            /* a page cleared */
	REPLAY_VA_RESET,         /* PV: HYPERVISOR_update_va_mapping() to nothing */
	REPLAY_VA_UPDATE,        /* PV: the same to a machine frame */
	REPLAY_TLB_FLUSH,        /* flush_tlb_all() */
	REPLAY_HYPERCALL,        /* XENMEM_*, one each */
	REPLAY_EXTENT_DECREASE,  /* an extent given to Xen */
	REPLAY_EXTENT_POPULATE,  /* an extent populated by Xen */
	REPLAY_P2M_INVALIDATE,   /* PV: set_phys_to_machine(INVALID_P2M_ENTRY) */
	REPLAY_SUPERPAGE_BREAK,  /* counted by replay itself, see replay_broken() */
	REPLAY_THREAD_WAKE,      /* a pass of a background thread */
	REPLAY_REGION_QUERY,     /* the hypervisor asked for a range */
	REPLAY_LIST_PUSH,
	REPLAY_LIST_POP,
	REPLAY_P2M_ENTRY,        /* PV: xen_alloc_p2m_entry() */
	REPLAY_ARRAY_WORD,       /* a word of a bitmap or an array read or written in sequence */
	REPLAY_NR_WORK
};

enum replay_event_kind {
	REPLAY_ENTERED, /* frames came under the allocator: a new section, ballooned-out RAM */
	REPLAY_LEFT,    /* free frames left it: given back to dom0 as RAM */
	REPLAY_GIVEN,   /* RAM pages given to Xen (taken back if negative); `first` counts for nothing */
	REPLAY_BROKEN,  /* 4 KiB changes in stage 2, which break superpages */
	REPLAY_POOL_SECTION,    /* a ZONE_DEVICE region was added */
	REPLAY_HOTPLUG_SECTIONS, /* memory was hot-added */
	REPLAY_SEED             /* a range was on the list at boot */
};

struct replay_event {
	int64_t kind, first, pages;
};

/* Calls that fail by option (--set fault.alloc_page=1/1000): replay_fails() says which. */
enum replay_fault {
	REPLAY_FAULT_ALLOC_PAGE,
	REPLAY_FAULT_KZALLOC,
	REPLAY_FAULT_P2M_ENTRY,  /* xen_alloc_p2m_entry() */
	REPLAY_FAULT_SET_P2M,    /* set_phys_to_machine() of new memory */
	REPLAY_FAULT_ADD_MEMORY, /* add_memory_resource() */
	REPLAY_FAULT_MEMREMAP,   /* memremap_pages() */
	REPLAY_FAULT_POPULATE,   /* an extent of XENMEM_populate_physmap */
	REPLAY_FAULT_SIGNAL,     /* a caller that would fall asleep has a signal pending */
	REPLAY_NR_FAULTS
};

struct replay_failing {
	int64_t times, of; /* of `of` calls `times` fail, none if that is 0 */
	int64_t state, calls, failed;
};

/* Lives in replay's memory; nothing fails within replay_init(). */
struct replay_faults {
	struct replay_failing of_kind[REPLAY_NR_FAULTS];
	int64_t entries;
	int64_t max_pages; /* d->max_pages: Xen populates nothing beyond; 0 for no limit */
	int64_t reason;    /* of the current call: the fault met last plus one */
};

/* What the allocator tells; lives in replay's memory, from replay_init() on. Write it through the
 * helpers; `listed`, `wake_at` and `got` are set before each return.
 */
struct replay_report {
	int64_t work[REPLAY_NR_WORK];
	int64_t dirty;       /* some work was reported */
	int64_t listed;      /* free frames that could be handed out at once */
	int64_t wake_at;     /* when replay_wake() is due; REPLAY_NEVER if not */
	int64_t got;         /* on REPLAY_ASLEEP: pages the sleeper has got so far */
	int64_t per_page;    /* set by replay_init(): whether each page costs list operations */
	int64_t own_lock;    /* set by replay_init(): whether replay_wake() takes another lock */
	/* The balloon driver's state, for allocators that have one; else 0. */
	int64_t current_pages, target_pages, total_pages, unpopulated_pages;
	int64_t state, sleep_credit; /* enum bp_state; the credit with which the thread sleeps */
	int64_t nr_events, max_events;
	struct replay_event *events;
	int64_t may_let_go; /* set before each call: whether it may return REPLAY_ADDING */
	int64_t request;    /* set before each call: the number of the request that begins or goes on */
	struct replay_faults *faults;
};

/* The version that an object was built with; replay refuses every other. */
__attribute__((weak, used, visibility("default"))) int64_t replay_version = REPLAY_VERSION;

/* Required. ---------------------------------------------------------------------------------- */

/* 0, or a negative errno if the machine cannot be served. The report is zeroed. */
int64_t replay_init(const struct replay_machine *machine, struct replay_report *report);

/* Write nr_pages frames in the order in which the kernel would return them: 0 or negative. */
int64_t replay_alloc(int64_t now, int64_t nr_pages, int64_t *frames);

/* Take frames back, in this order: 0 or negative. */
int64_t replay_free(int64_t now, int64_t nr_pages, const int64_t *frames);

/* Optional. ---------------------------------------------------------------------------------- */

/* A sleeper, the oldest, or the call that let go as report->request goes on. frames: as in its
 * replay_alloc(), nr_pages of them.
 */
int64_t replay_resume(int64_t now, int64_t nr_pages, int64_t *frames);

/* Background work is due (report->wake_at): one pass under its lock, then a new wake_at. Or
 * REPLAY_ADDING: the lock is let go of, and the next replay_wake() goes on once the memory is there.
 */
int64_t replay_wake(int64_t now);

/* The balloon target was set, in pages. No lock is held. */
int64_t replay_target(int64_t now, int64_t pages);

/* Up to max free frames, the one to go next first; how many there are. For comparisons only. */
int64_t replay_list(int64_t max, int64_t *frames);

/* One line that names the allocator and its version. */
const char *replay_name(void);

/* Helpers ------------------------------------------------------------------------------------ */

static inline void replay_did(struct replay_report *report, enum replay_work work, int64_t count)
{
	report->work[work] += count;
	report->dirty = 1;
}

/* Whether the next call of a kind fails: SplitMix64, a stream for each kind. Ask once per call. */
static inline int replay_fails(struct replay_report *report, enum replay_fault kind)
{
	struct replay_failing *f = report->faults->of_kind + kind;
	uint64_t x;

	if (!f->times)
		return 0;
	f->calls++;
	x = (uint64_t)f->state + UINT64_C(0x9E3779B97F4A7C15);
	f->state = (int64_t)x;
	x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
	x ^= x >> 31;
	if (x % (uint64_t)f->of >= (uint64_t)f->times)
		return 0;
	f->failed++;
	report->faults->reason = kind + 1;
	report->dirty = 1;
	return 1;
}

/* Neighbouring frames of one kind, going up, become one event. When there is no room left,
 * nr_events goes beyond max_events, and replay stops with an error.
 */
static inline void replay_tell(struct replay_report *report, enum replay_event_kind kind,
			       int64_t first, int64_t pages)
{
	struct replay_event *last = report->events + report->nr_events - 1;

	if (report->nr_events > 0 && report->nr_events <= report->max_events && last->kind == kind &&
	    kind != REPLAY_POOL_SECTION && kind != REPLAY_HOTPLUG_SECTIONS &&
	    last->first + last->pages == first) {
		last->pages += pages;
		return;
	}
	if (report->nr_events++ < report->max_events) {
		last[1].kind = kind;
		last[1].first = first;
		last[1].pages = pages;
	}
}

#endif

/* An example: a pool of memory sections, placed first-fit in the gaps of iomem_resource.
 *
 *   gcc -O2 -shared -fPIC -I "$(replay c-header)" -o mine.so "$(replay c-header)/example.c"
 *   replay check-allocator ./mine.so
 *   replay run traces/pvh-dom0.arrow --allocator ./mine.so --set mine.sections=2
 */
#include "replay_allocator.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct replay_machine *machine;
static struct replay_report *report;

static int64_t *stack, count; /* free frames; the last one goes first */
static int64_t held, room;    /* frames of all regions, all of which may be free at once */
static int64_t next_byte;           /* where the search goes on: regions are never released */
static int64_t sections = 1;        /* option: sections added at a time */

/* The first byte from next_byte on where `bytes` fit between the children; -1 if nowhere. */
static int64_t find(int64_t bytes, int64_t align)
{
	int64_t start = (next_byte + align - 1) / align * align, k;

	for (k = 0; k < machine->nr_iomem; k++) {
		if (machine->iomem[k].last < start)
			continue;
		if (machine->iomem[k].start >= start + bytes)
			break;
		start = (machine->iomem[k].last + align) / align * align;
	}
	if (start + bytes - 1 > machine->pluggable_last || start + bytes - 1 > machine->iomem_last ||
	    (start + bytes) / machine->page_bytes > machine->frames)
		return -1;
	return start;
}

static int add_region(int64_t wanted)
{
	int64_t step = sections * machine->section_pages;
	int64_t pages = (wanted + step - 1) / step * step;
	int64_t align = machine->section_pages * machine->page_bytes;
	int64_t start = find(pages * machine->page_bytes, align), first, k;

	replay_did(report, REPLAY_RESOURCE_STEP, machine->nr_iomem);
	if (start < 0)
		return -EBUSY;
	held += pages;
	if (held > room) {
		room = 2 * held;
		stack = realloc(stack, room * sizeof(*stack));
		if (!stack)
			return -ENOMEM;
	}
	next_byte = start + pages * machine->page_bytes;
	first = start / machine->page_bytes;
	for (k = 0; k < pages; k++)
		stack[count++] = first + k;
	/* What it took, for the cost profile; what is new, for the fragmentation figures. */
	replay_did(report, REPLAY_RESOURCE_ADD, 1);
	replay_did(report, REPLAY_MEMMAP_PAGE, pages);
	replay_did(report, REPLAY_SECTION_MAP, pages / machine->section_pages);
	replay_did(report, REPLAY_GRACE_PERIOD, 1);
	if (machine->mode == REPLAY_PV)
		replay_did(report, REPLAY_DIRECT_MAP, pages);
	replay_tell(report, REPLAY_POOL_SECTION, first, pages);
	replay_tell(report, REPLAY_ENTERED, first, pages);
	return 0;
}

int64_t replay_init(const struct replay_machine *given, struct replay_report *to)
{
	int64_t k;

	machine = given;
	report = to;
	next_byte = machine->pluggable_first;
	for (k = 0; k < machine->nr_options; k++) {
		if (strncmp(machine->options[k], "sections=", 9))
			return -EINVAL;
		sections = atoll(machine->options[k] + 9);
		if (sections < 1 || sections > 1024)
			return -EINVAL;
	}
	report->wake_at = REPLAY_NEVER;
	report->per_page = 1;
	return 0;
}

int64_t replay_alloc(int64_t now, int64_t nr_pages, int64_t *frames)
{
	int64_t k;
	int error = 0;

	if (count < nr_pages)
		error = add_region(nr_pages - count);
	for (k = 0; !error && k < nr_pages; k++)
		frames[k] = stack[--count];
	report->listed = count;
	return error;
}

int64_t replay_free(int64_t now, int64_t nr_pages, const int64_t *frames)
{
	int64_t k;

	for (k = 0; k < nr_pages; k++)
		stack[count++] = frames[k];
	report->listed = count;
	return 0;
}

int64_t replay_list(int64_t max, int64_t *frames)
{
	int64_t k;

	for (k = 0; k < count && k < max; k++)
		frames[k] = stack[count - 1 - k];
	return count;
}

const char *replay_name(void)
{
	return "example pool";
}

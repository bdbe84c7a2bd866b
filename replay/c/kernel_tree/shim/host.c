/* The C library's side of the shims: memory and coroutines. */
#define _GNU_SOURCE
#include "host.h"

#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define STACK_BYTES (256 << 10)

struct host_task {
	void (*body)(void *);
	void *data;
	void *stack;
	ucontext_t first;
	jmp_buf here, caller;
	int started, ended;
	struct host_task *next;
};

static struct host_task *running, *spare;

void host_fail(const char *what)
{
	fprintf(stderr, "%s\n", what);
	fflush(stderr);
	abort();
}

void *host_zalloc(unsigned long bytes)
{
	void *memory = calloc(1, bytes ? bytes : 1);

	if (!memory)
		host_fail("out of memory");
	return memory;
}

void *host_realloc(void *memory, unsigned long bytes)
{
	memory = realloc(memory, bytes);
	if (!memory)
		host_fail("out of memory");
	return memory;
}

void host_free(void *memory)
{
	free(memory);
}

struct mapping {
	struct mapping *next;
	unsigned long bytes;
};
static struct mapping *mappings;

void *host_map(unsigned long bytes)
{
	struct mapping *mapping;

	bytes += 4096;
	mapping = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mapping == MAP_FAILED)
		host_fail("no address space for the page structures");
	mapping->next = mappings;
	mapping->bytes = bytes;
	mappings = mapping;
	return (char *)mapping + 4096;
}

/* When the object is closed; many are opened one after the other in one process. */
__attribute__((destructor)) static void unmap_all(void)
{
	while (mappings) {
		struct mapping *next = mappings->next;

		munmap(mappings, mappings->bytes);
		mappings = next;
	}
}

int host_same(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

long host_number(const char *text, const char *name, long otherwise)
{
	size_t length = strlen(name);

	if (strncmp(text, name, length) || text[length] != '=')
		return otherwise;
	return strtol(text + length + 1, NULL, 0);
}

static void begin(void)
{
	struct host_task *task = running;

	/* A task that has ended may be given another body: see host_task(). */
	for (;;) {
		task->body(task->data);
		task->ended = 1;
		if (!_setjmp(task->here))
			_longjmp(task->caller, 1);
	}
}

struct host_task *host_task(void (*body)(void *), void *data)
{
	struct host_task *task = spare;

	if (task) {
		spare = task->next;
		task->body = body;
		task->data = data;
		task->ended = 0;
		return task;
	}
	task = host_zalloc(sizeof(*task));
	task->body = body;
	task->data = data;
	task->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (task->stack == MAP_FAILED)
		host_fail("no memory for a stack");
	return task;
}

void host_task_free(struct host_task *task)
{
	if (!task->ended)
		host_fail("a task is dropped before it has ended");
	task->next = spare;
	spare = task;
}

/* swapcontext() would make two system calls each time: it is used for the first step alone. */
int host_resume(struct host_task *task)
{
	struct host_task *outer = running;

	running = task;
	if (!_setjmp(task->caller)) {
		if (task->started)
			_longjmp(task->here, 1);
		task->started = 1;
		getcontext(&task->first);
		task->first.uc_stack.ss_sp = task->stack;
		task->first.uc_stack.ss_size = STACK_BYTES;
		makecontext(&task->first, begin, 0);
		setcontext(&task->first);
	}
	running = outer;
	return task->ended;
}

void host_yield(void)
{
	struct host_task *task = running;

	if (!task)
		host_fail("the kernel's code sleeps where nothing can wake it");
	if (!_setjmp(task->here))
		_longjmp(task->caller, 1);
}

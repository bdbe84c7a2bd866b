/* What the shims need of the C library, kept apart: kernel names and libc names would collide. */
#ifndef HOST_H
#define HOST_H

void *host_zalloc(unsigned long bytes);
void *host_realloc(void *memory, unsigned long bytes);
void host_free(void *memory);
/* Address space of zeros that costs memory only where it is touched. */
void *host_map(unsigned long bytes);
void host_fail(const char *what) __attribute__((noreturn));
int host_same(const char *a, const char *b);
long host_number(const char *text, const char *name, long otherwise);

/* Coroutines: a task that runs until it yields. One task runs at a time. */
struct host_task;
struct host_task *host_task(void (*body)(void *), void *data);
void host_task_free(struct host_task *task);
/* Run a task until it yields or ends; whether it has ended. */
int host_resume(struct host_task *task);
void host_yield(void);

#endif

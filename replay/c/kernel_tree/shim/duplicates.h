/* What the files under test take from the kernel's headers for its meaning: types, arithmetic,
 * lists, errors. Written anew here, as few as are needed, to mean the same.
 */
#ifndef DUPLICATES_H
#define DUPLICATES_H

/* -- compiler, types, arithmetic ---------------------------------------------------------------- */
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;
typedef u64 __be64;
typedef u32 __be32;
typedef unsigned int uint;
typedef unsigned int gfp_t;
typedef unsigned short umode_t;
typedef long loff_t;
typedef long ssize_t;
typedef u64 phys_addr_t;
typedef phys_addr_t resource_size_t;

#define __weak __attribute__((weak))
#define __always_inline inline
#define __must_check
#define __maybe_unused __attribute__((unused))
#define fallthrough __attribute__((fallthrough))
#define likely(x) (x)
#define unlikely(x) (x)

#define min(a, b) ({ __typeof__(a) _a = (a); __typeof__(b) _b = (b); _a < _b ? _a : _b; })
#define max(a, b) ({ __typeof__(a) _a = (a); __typeof__(b) _b = (b); _a > _b ? _a : _b; })
#define min_t(type, a, b) ({ type _a = (a); type _b = (b); _a < _b ? _a : _b; })
#define max_t(type, a, b) ({ type _a = (a); type _b = (b); _a > _b ? _a : _b; })
#define __ALIGN_MASK(x, mask) (((x) + (mask)) & ~(mask))
#define ALIGN(x, a) __ALIGN_MASK(x, (__typeof__(x))(a) - 1)
#define round_up(x, y) ((((x) - 1) | ((__typeof__(x))(y) - 1)) + 1)
#define round_down(x, y) ((x) & ~((__typeof__(x))(y) - 1))
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n) (1UL << (n))
#define fls(x) ((x) ? 32 - __builtin_clz(x) : 0)
#define fls_long(x) ((x) ? 64 - __builtin_clzl(x) : 0)
#define ilog2(x) (63 - __builtin_clzl(x))
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))
#define READ_ONCE(x) (*(volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile __typeof__(x) *)&(x) = (value))
#define smp_load_acquire(p) (*(p))
#define smp_store_release(p, value) (*(p) = (value))
#define barrier() __asm__ volatile("" ::: "memory")
#define lower_32_bits(n) ((u32)(n))
#define upper_32_bits(n) ((u32)((n) >> 32))

/* linux/args.h: names that are put together of others, and how many arguments there are */
#define SHIM_JOIN(a, b) a##b
#define CONCATENATE(a, b) SHIM_JOIN(a, b)
#define SHIM_TENTH(a, b, c, d, e, f, g, h, i, j, ...) j
#define COUNT_ARGS(...) SHIM_TENTH(__VA_ARGS__, 9, 8, 7, 6, 5, 4, 3, 2, 1)

/* -- errors, messages ---------------------------------------------------------------------------- */
enum { EPERM = 1, ENOENT = 2, EINTR = 4, EIO = 5, ENXIO = 6, E2BIG = 7, EAGAIN = 11, ENOMEM = 12,
       EFAULT = 14, EBUSY = 16, EEXIST = 17, ENODEV = 19, EINVAL = 22, ENOSPC = 28, ERANGE = 34,
       ENOSYS = 38, EOPNOTSUPP = 95, ERESTARTSYS = 512 };
#define MAX_ERRNO 4095
#define ERR_PTR(error) ((void *)(long)(error))
#define PTR_ERR(p) ((long)(p))
#define IS_ERR(p) ((unsigned long)(p) >= (unsigned long)-MAX_ERRNO)
#define IS_ERR_OR_NULL(p) (!(p) || IS_ERR(p))

#define panic(...) host_fail("panic(): the kernel's code gave up")
#define SHIM_TEXT2(x) #x
#define SHIM_TEXT(x) SHIM_TEXT2(x)
#define BUG() host_fail("BUG() at " __FILE__ ":" SHIM_TEXT(__LINE__))
#define BUG_ON(x) do { if (x) host_fail("BUG_ON(" #x ") at " __FILE__ ":" SHIM_TEXT(__LINE__)); } \
	while (0)
#define BUILD_BUG_ON(x) _Static_assert(!(x), #x)
#define WARN_ON(x) ({ bool _w = (x); _w; })
#define WARN_ON_ONCE(x) WARN_ON(x)
#define WARN(x, ...) WARN_ON(x)
#define WARN_ONCE(x, ...) WARN_ON(x)
#define VM_BUG_ON(x) BUG_ON(x)
/* -- lists --------------------------------------------------------------------------------------- */
struct list_head {
	struct list_head *next, *prev;
};
#define LIST_HEAD_INIT(name) { &(name), &(name) }
#define LIST_HEAD(name) struct list_head name = LIST_HEAD_INIT(name)
static inline void INIT_LIST_HEAD(struct list_head *list)
{
	list->next = list->prev = list;
}
static inline void shim_list_insert(struct list_head *new, struct list_head *prev,
				    struct list_head *next)
{
	new->prev = prev;
	new->next = next;
	prev->next = new;
	next->prev = new;
}
static inline void list_add(struct list_head *new, struct list_head *head)
{
	shim_list_insert(new, head, head->next);
}
static inline void list_add_tail(struct list_head *new, struct list_head *head)
{
	shim_list_insert(new, head->prev, head);
}
static inline void list_del(struct list_head *entry)
{
	entry->next->prev = entry->prev;
	entry->prev->next = entry->next;
}
static inline void list_del_init(struct list_head *entry)
{
	list_del(entry);
	INIT_LIST_HEAD(entry);
}
static inline bool list_empty(const struct list_head *head)
{
	return head->next == head;
}
#define list_entry(p, type, member) container_of(p, type, member)
#define list_first_entry(head, type, member) list_entry((head)->next, type, member)
#define list_next_entry(p, member) list_entry((p)->member.next, __typeof__(*(p)), member)
#define list_first_entry_or_null(head, type, member) \
	(list_empty(head) ? NULL : list_first_entry(head, type, member))
#define list_for_each_entry(p, head, member) \
	for (p = list_first_entry(head, __typeof__(*p), member); &p->member != (head); \
	     p = list_next_entry(p, member))
#define list_for_each_entry_safe(p, n, head, member) \
	for (p = list_first_entry(head, __typeof__(*p), member), n = list_next_entry(p, member); \
	     &p->member != (head); p = n, n = list_next_entry(n, member))

/* -- ranges -------------------------------------------------------------------------------------- */
struct range {
	u64 start, end;
};

#endif

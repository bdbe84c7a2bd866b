/* The kernel's environment for the files under test: every header they include becomes this one,
 * but for those of the tree that build.py lists (TREE_HEADERS).
 *
 * Only names are here, as few as the files need; what they do is in glue.c.
 */
#ifndef SHIM_H
#define SHIM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host.h"

/* -- configuration: build.py passes -DSHIM_PAGE_SHIFT and, for x86, -DSHIM_X86 ----------------- */
#define CONFIG_XEN_BALLOON 1
#define CONFIG_XEN_UNPOPULATED_ALLOC 1
#define CONFIG_MEMORY_HOTPLUG 1
#ifndef SHIM_NO_MEMORY_HOTPLUG
#define CONFIG_XEN_BALLOON_MEMORY_HOTPLUG 1
#endif
#ifdef SHIM_X86
#define CONFIG_X86 1
#define CONFIG_X86_64 1
#define CONFIG_XEN_HAVE_PVMMU 1
#define CONFIG_XEN_PV 1
#else
#define CONFIG_ARM64 1
#endif
#define CONFIG_64BIT 1
#define KBUILD_MODNAME "harness"
#define THIS_MODULE NULL
#define IS_ENABLED(option) 0

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

#define __init
#define __initdata
#define __exit
#define __weak __attribute__((weak))
#define __read_mostly
#define __ro_after_init
#define __user
#define __iomem
#define __percpu
#define __always_inline inline
#define __must_check
#define __maybe_unused __attribute__((unused))
#define __acquires(lock)
#define __releases(lock)
#define fallthrough __attribute__((fallthrough))
#define likely(x) (x)
#define unlikely(x) (x)
#define EXPORT_SYMBOL(name)
#define EXPORT_SYMBOL_GPL(name)
#define EXPORT_SYMBOL_NS_GPL(name, space)
#define SHIM_UNUSED(name) static const int shim_##name __attribute__((unused)) = 0
#define module_param(name, ...) SHIM_UNUSED(param_##name)
#define core_param(name, ...) SHIM_UNUSED(core_##name)
#define MODULE_PARM_DESC(...)
#define __setup(text, function) \
	static int (*shim_setup_##function)(char *) __attribute__((unused)) = function
/* Init calls run when glue.c says so; the others are kept from being warned about. */
#define early_initcall(function) int shim_early_##function(void) { return function(); }
#define subsys_initcall(function) int shim_subsys_##function(void) { return function(); }
#define SHIM_NO_INITCALL(function) \
	static int (*shim_never_##function)(void) __attribute__((unused)) = function
#define late_initcall_sync(function) SHIM_NO_INITCALL(function)
#define late_initcall(function) SHIM_NO_INITCALL(function)
#define fs_initcall(function) SHIM_NO_INITCALL(function)
#define __initcall(function) SHIM_NO_INITCALL(function)
#define device_initcall(function) SHIM_NO_INITCALL(function)

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

/* -- errors, messages ---------------------------------------------------------------------------- */
enum { EPERM = 1, ENOENT = 2, EINTR = 4, EIO = 5, ENXIO = 6, E2BIG = 7, EAGAIN = 11, ENOMEM = 12,
       EFAULT = 14, EBUSY = 16, EEXIST = 17, ENODEV = 19, EINVAL = 22, ENOSPC = 28, ERANGE = 34,
       ENOSYS = 38, EOPNOTSUPP = 95 };
#define MAX_ERRNO 4095
#define ERR_PTR(error) ((void *)(long)(error))
#define PTR_ERR(p) ((long)(p))
#define IS_ERR(p) ((unsigned long)(p) >= (unsigned long)-MAX_ERRNO)
#define IS_ERR_OR_NULL(p) (!(p) || IS_ERR(p))

/* The kernel's formats (%pR, %pa) are no printf's: messages are dropped unread. */
#define shim_quiet(...) ((void)0)
#define printk(...) shim_quiet(__VA_ARGS__)
#define pr_info(...) shim_quiet(__VA_ARGS__)
#define pr_notice(...) shim_quiet(__VA_ARGS__)
#define pr_warn(...) shim_quiet(__VA_ARGS__)
#define pr_warn_once(...) shim_quiet(__VA_ARGS__)
#define pr_err(...) shim_quiet(__VA_ARGS__)
#define pr_debug(...) shim_quiet(__VA_ARGS__)
#define dev_err(...) shim_quiet(__VA_ARGS__)
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
#define lockdep_assert_held(lock) ((void)0)
#define dump_stack() ((void)0)

/* -- memory -------------------------------------------------------------------------------------- */
enum { GFP_KERNEL = 1, GFP_USER = 2, GFP_HIGHUSER = 4, __GFP_NOWARN = 8, __GFP_NORETRY = 16,
       __GFP_NOMEMALLOC = 32, GFP_ATOMIC = 64, __GFP_RETRY_MAYFAIL = 128, __GFP_ZERO = 256 };
#define kzalloc(bytes, gfp) host_zalloc(bytes)
#define kmalloc(bytes, gfp) host_zalloc(bytes)
#define kcalloc(n, bytes, gfp) host_zalloc((n) * (bytes))
#define kmalloc_array(n, bytes, gfp) host_zalloc((n) * (bytes))
#define kvcalloc(n, bytes, gfp) host_zalloc((n) * (bytes))
#define kvrealloc(p, bytes, gfp) host_realloc(p, bytes)
#define kfree(p) host_free((void *)(p))
#define kvfree(p) host_free((void *)(p))
void *memset(void *at, int value, size_t bytes);
void *memcpy(void *to, const void *from, size_t bytes);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);
char *strstr(const char *text, const char *part);

#include "shim_types.h"

/* -- the tree's own headers, in an order in which each finds what it needs ----------------------- */
#include <linux/ioport.h>
#include <linux/resource_ext.h>
#include <xen/interface/memory.h>
#include <xen/mem-reservation.h>
#include <xen/balloon.h>

#endif

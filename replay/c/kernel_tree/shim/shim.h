/* The kernel's environment for the files under test: every header they include becomes this one,
 * but for those of the tree that source.py lists (HEADERS).
 *
 * duplicates.h: what means here what it means in the kernel. stubs.h: names that do nothing.
 * environment.h: what glue.c does in the kernel's place.
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
#ifndef SHIM_NO_UNPOPULATED_ALLOC
#define CONFIG_XEN_UNPOPULATED_ALLOC 1
#endif
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

#include "duplicates.h"
#include "stubs.h"
#include "environment.h"

/* -- the tree's own headers, in an order in which each finds what it needs ----------------------- */
#include <linux/ioport.h>
#include <linux/resource_ext.h>
#include <xen/interface/memory.h>
#include <xen/mem-reservation.h>
#include <xen/balloon.h>

#endif


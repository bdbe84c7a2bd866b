/* Names that the files under test use and that do nothing here: no path that is replayed hangs on
 * them.
 */
#ifndef STUBS_H
#define STUBS_H

/* -- compiler, modules, init calls --------------------------------------------------------------- */
#define __init
#define __initdata
#define __exit
#define __read_mostly
#define __ro_after_init
#define __user
#define __iomem
#define __percpu
#define __acquires(lock)
#define __releases(lock)
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

/* -- messages ------------------------------------------------------------------------------------ */
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
#define lockdep_assert_held(lock) ((void)0)
#define dump_stack() ((void)0)

/* -- nodes and statistics: a machine of one node, whose counters nobody reads -------------------- */
enum { NR_BALLOON_PAGES, NR_FREE_PAGES };
struct pglist_data;
#define mod_node_page_state(node, item, pages) ((void)(node))
#define page_pgdat(page) ((void)(page), (struct pglist_data *)NULL)
#define NODE_DATA(node) ((struct pglist_data *)NULL)
#define MAX_NUMNODES 1
#define nr_node_ids 1U
#define first_online_node 0
#define numa_node_id() 0
#define numa_mem_id() 0
#define cpu_to_node(cpu) 0
#define page_to_nid(page) ((void)(page), 0)
#define node_online(node) ((node) == 0)
#define for_each_node(node) for ((node) = 0; (node) < MAX_NUMNODES; (node)++)
#define for_each_online_node(node) for_each_node(node)

/* -- sysctl -------------------------------------------------------------------------------------- */
#define proc_dointvec_minmax NULL
#define SYSCTL_ZERO NULL
#define SYSCTL_ONE NULL

/* -- what else kernel/resource.c names; none of it is called here --------------------------------- */
struct device {
	int unused;
};
struct address_space;
struct inode {
	struct address_space *i_mapping;
};
struct super_block;
struct vfsmount {
	struct super_block *mnt_sb;
};
struct fs_context;
struct file_system_type {
	const char *name;
	void *owner;
	int (*init_fs_context)(struct fs_context *fc);
	void (*kill_sb)(struct super_block *sb);
};
#define DEVMEM_MAGIC 0
enum { REGION_INTERSECTS, REGION_DISJOINT, REGION_MIXED };
#define IO_SPACE_LIMIT 0xffff
#define kill_anon_super NULL
#define init_pseudo(fc, magic) NULL
#define simple_pin_fs(type, mount, count) 0
#define simple_release_fs(mount, count) ((void)0)
#define alloc_anon_inode(sb) ((struct inode *)NULL)
#define unmap_mapping_range(mapping, start, length, even) ((void)0)
#define dev_name(dev) ""
#define devres_alloc(release, bytes, gfp) host_zalloc(bytes)
#define devres_add(dev, p) ((void)0)
#define devres_free(p) host_free(p)
#define devres_release(dev, release, match, data) ((void)(release), (void)(match), 0)
#define devres_destroy(dev, release, match, data) ((void)(release), (void)(match), 0)
#define devm_add_action_or_reset(dev, action, data) 0
#define devm_release_action(dev, action, data) ((void)0)
#define get_option(text, value) 0
#define set_current_state(state) ((void)0)
#define TASK_UNINTERRUPTIBLE 0
#define DECLARE_WAITQUEUE(name, task) int name
#define add_wait_queue(queue, wait) ((void)(queue), (void)(wait))
#define remove_wait_queue(queue, wait) ((void)(queue), (void)(wait))
#define schedule() host_fail("schedule(): nothing can wake this caller")
struct seq_file;

#endif

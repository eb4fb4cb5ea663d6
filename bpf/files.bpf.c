/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What a descriptor is, at the time of the call: found by way of the task's file
 * table and told to the agent once, under a number that calls then carry.
 *
 * A file is known by its place in the tree of names (its dentry, the hashes of
 * its name and of its directory's, its mount), so that one that was renamed or moved
 * is told anew; what has no such place, by its inode's number and its operations,
 * as the memory of its dentry is soon used again. A directory further up that was
 * renamed is noticed after FILE_KNOWN_NS at the latest.
 */

#define FILE_KNOWN_NS 10000000000ULL
#define FILES_KNOWN_MAX 16384

struct file_key {
	u64 dentry;
	u64 name;		/* qstr.hash_len: the hash is salted with the directory's address */
	u64 directory_name;
	u64 mount;
	u64 ino;
	u64 operations;
};

struct known_file {
	u64 told_ns;
	u32 number;
	u32 reserved;
};

BPF_TABLE("lru_hash", struct file_key, struct known_file, known_files, FILES_KNOWN_MAX);
BPF_PERCPU_ARRAY(file_seqs, u32, 1);

#define PATH_ROOM 4096		/* a power of two */
#define PATH_NAMES_MAX 64	/* deeper ones are cut at the root's side */
#define NAME_ROOM 256		/* NAME_MAX + 1 */

/* A path is written from its end on, as its names are found. */
struct path_scratch {
	u32 start;
	u32 is_whole;
	char text[PATH_ROOM + NAME_ROOM];
};
/* sys_enter and sys_exit cannot be preempted: one for a CPU is enough for them. */
BPF_PERCPU_ARRAY(path_scratches, struct path_scratch, 1);

/* Put *name* before what is there already. Kept in memory: the verifier need not follow where it stands. */
static __always_inline bool prepend_name(volatile struct path_scratch *path, u64 dentry, bool is_named_from_root)
{
	u32 start = path->start, length = 0;
	u64 name = 0, at;

	READ(length, dentry, DENTRY_D_NAME_LEN);
	READ(name, dentry, DENTRY_D_NAME_NAME);
	if (length > NAME_ROOM - 1 || length + 1 > start)
		return false;
	start -= length;
	at = start;
	asm volatile("%0 &= 4095" : "+r"(at));
	asm volatile("%0 &= 255" : "+r"(length));
	bpf_probe_read_kernel((char *)path->text + at, length, (void *)name);
	if (is_named_from_root) {
		start -= 1;
		at = start;
		asm volatile("%0 &= 4095" : "+r"(at));
		path->text[at] = '/';
	}
	path->start = start;
	return true;
}

/*
 * Write the path of *dentry* on *mount* (struct vfsmount) as readlink on
 * /proc/PID/fd has it, up to the root of all mounts; a file that has no place there
 * (a socket, a pipe, an anonymous inode) by its own name alone. Loops are bounded, not unrolled (since 5.3).
 */
static __always_inline void write_path(struct path_scratch *path, u64 dentry, u64 mount)
{
	u64 root, parent, holder, above;
	int i;

	path->start = PATH_ROOM - 1;
	path->text[PATH_ROOM - 1] = 0;
	path->is_whole = 0;
	for (i = 0; i < PATH_NAMES_MAX; i++) {
		root = parent = above = 0;
		READ(root, mount, VFSMOUNT_MNT_ROOT);
		READ(parent, dentry, DENTRY_D_PARENT);
		if (dentry == root) {
			holder = mount - MOUNT_MNT;
			READ(above, holder, MOUNT_MNT_PARENT);
			if (above == holder) {	/* the root of all */
				path->is_whole = 1;
				if (path->start == PATH_ROOM - 1) {
					path->start -= 1;
					path->text[PATH_ROOM - 2] = '/';
				}
				break;
			}
			READ(dentry, holder, MOUNT_MNT_MOUNTPOINT);
			mount = above + MOUNT_MNT;
			continue;
		}
		if (dentry == parent) {	/* no place in the tree */
			path->is_whole = prepend_name(path, dentry, false);
			break;
		}
		if (!prepend_name(path, dentry, true))
			break;
		dentry = parent;
	}
}

#if ARGS >= ARGS_DECODED

/* 0 is no number. Twelve bits of CPU and twenty of a count that goes round: old numbers are forgotten long before. */
static __always_inline u32 next_file_number(void)
{
	u32 zero = 0, *seq = file_seqs.lookup(&zero);

	if (!seq)
		return 0;
	*seq = (*seq + 1) & 0xfffff;
	*seq += !*seq;
	return bpf_get_smp_processor_id() << 20 | *seq;
}

/* Tell the agent what *number* means; whether it could be told. */
static __always_inline bool emit_file(u32 number, u64 inode, struct file_key *key)
{
	u32 zero = 0;
	struct path_scratch *path = path_scratches.lookup(&zero);
	struct string_record *record = files.ringbuf_reserve(sizeof(struct string_record));
	u16 mode = 0;

	if (!record) {
		count(LEDGER_STRINGS_DROPPED);
		return false;
	}
	begin_string(record, STRING_FILE, number, 0);
	READ(mode, inode, INODE_I_MODE);
	record->ino = key->ino;
	record->mode = mode;
	if (path) {	/* always; the verifier wants it */
		u64 at;

		write_path(path, key->dentry, key->mount);
		at = path->start;
		asm volatile("%0 &= 4095" : "+r"(at));
		end_text(record, bpf_probe_read_kernel_str(record->text, STRING_READ, path->text + at));
		if (!path->is_whole)
			record->length = STRING_LIMIT + 1;
	}
	files.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return true;
}

/* The number of what the current task's *descriptor* is; 0: there is none, or it could not be told (counted). */
static __always_inline u32 file_number(s32 descriptor, u64 now_ns)
{
	u64 task = bpf_get_current_task(), table = 0, array = 0, file = 0, inode = 0, directory = 0;
	struct file_key key = {};
	struct known_file fresh = { .told_ns = now_ns }, *known;
	u32 size = 0;

	if (descriptor < 0)
		return 0;
	READ(table, task, TASK_STRUCT_FILES);
	READ(table, table, FILES_STRUCT_FDT);
	READ(size, table, FDTABLE_MAX_FDS);
	if ((u32)descriptor >= size)
		return 0;
	READ(array, table, FDTABLE_FD);
	READ(file, array, 8ULL * (u32)descriptor);
	if (!file)
		return 0;
	READ(key.dentry, file, FILE_F_PATH_DENTRY);
	READ(key.mount, file, FILE_F_PATH_MNT);
	READ(key.name, key.dentry, DENTRY_D_NAME_HASH_LEN);
	READ(directory, key.dentry, DENTRY_D_PARENT);
	READ(key.directory_name, directory, DENTRY_D_NAME_HASH_LEN);
	READ(key.operations, file, FILE_F_OP);
	READ(inode, file, FILE_F_INODE);
	READ(key.ino, inode, INODE_I_INO);
	known = known_files.lookup(&key);
	if (known && now_ns - known->told_ns < FILE_KNOWN_NS)
		return known->number;
	fresh.number = next_file_number();
	if (!emit_file(fresh.number, inode, &key))	/* dropped: counted there */
		return 0;
	known_files.update(&key, &fresh);
	return fresh.number;
}

#endif

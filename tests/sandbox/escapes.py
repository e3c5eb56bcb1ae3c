"""The table of attempts to get out: what each is, and what comes of it at each level.

A word in capitals is the errno that the attempt ends with; `signal n`, `none` and `paired` are what it says itself; the
others are verdicts of whole programs. `-` stands for what a level does not claim. The documentation's table of claims
is made of this one, and tests hold the runtimes to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NOT_CLAIMED: Final = "-"


@dataclass(frozen=True, slots=True)
class Escape:
    """`l3` and `l2`: the words of which one is to come of it. `machine`: the only one that it is made for."""

    name: str
    about: str
    l3: tuple[str, ...]
    l2: tuple[str, ...]
    machine: str = ""


def _all(expected: str) -> tuple[str, ...]:
    return tuple(expected.split(" or "))


def _group(*rows: tuple[str, str, str] | tuple[str, str, str, str] | tuple[str, str, str, str, str]) -> list[Escape]:
    found = []
    for name, about, l3, *more in rows:
        l2 = more[0] if more else l3
        found.append(Escape(name, about, _all(l3), _all(l2), more[1] if len(more) > 1 else ""))
    return found


FILES: Final = _group(
    ("read_shadow", "read `/etc/shadow`", "ENOENT", "EACCES"),
    ("read_a_file_that_everyone_may_read", "read a file of the machine with mode 0644", "ENOENT", "EACCES"),
    ("follow_a_link_out", "the same, by a symbolic link in its folder", "ENOENT", "EACCES"),
    ("hard_link_a_file_from_outside", "the same, by a hard link", "ENOENT", "EACCES or EXDEV or EPERM"),
    ("climb_out_by_dots", "the same, by `../../..`", "ENOENT", "EACCES"),
    ("list_home", "list `/home`", "ENOENT", "EACCES"),
    ("read_cloud_credentials", "read the worker's `~/.aws/credentials`", "ENOENT", "EACCES"),
    ("read_the_key_of_flowkit", "read the file of a master key", "ENOENT", "EACCES"),
    ("read_the_work_of_another_program", "list the folder of another program that runs", "ENOENT", "EACCES"),
    ("read_the_kernel_log", "read `/dev/kmsg`", "ENOENT", "EACCES or ENOENT"),
    ("read_physical_memory", "read `/dev/mem`", "ENOENT", "EACCES or ENOENT"),
    ("read_a_disk", "read a disk", "ENOENT", "EACCES"),
    ("write_to_usr", "make a file in `/usr`", "EROFS", "EACCES"),
    ("overwrite_the_interpreter", "overwrite its own interpreter", "EROFS or EACCES", "EACCES"),
    ("poison_site_packages", "make a `sitecustomize.py`", "EROFS or EACCES", "EACCES"),
    ("poison_the_loader", "make an `/etc/ld.so.preload`", "EROFS", "EACCES"),
    ("overwrite_what_is_readable", "overwrite a file that it was given to read", "EROFS or EACCES", "EACCES"),
    ("add_to_what_is_readable", "make a file in a folder that it was given to read", "EROFS", "EACCES"),
    ("write_to_the_root", "make a file in `/`", "EROFS", "EACCES"),
    ("read_shared_memory_of_others", "read another's file in `/dev/shm`", "ENOENT", "EACCES"),
    ("make_a_device", "make a block device in its folder", "EPERM", "EPERM or EACCES"),
    ("make_a_device_with_characters", "make a character device in its folder", "EPERM", "EPERM or EACCES"),
)

PROCESSES: Final = _group(
    ("read_the_worker_s_environment", "read the worker's `/proc/PID/environ`", "ENOENT", "EACCES"),
    ("read_the_worker_s_memory", "read the worker's `/proc/PID/mem`", "ENOENT", "EACCES"),
    ("list_the_worker_s_descriptors", "list the worker's `/proc/PID/fd`", "ENOENT", "EACCES"),
    ("enter_the_worker_s_root", "go through the worker's `/proc/PID/root`", "ENOENT", "EACCES"),
    ("enter_the_worker_s_folder", "go through the worker's `/proc/PID/cwd`", "ENOENT", "EACCES"),
    ("read_the_environment_of_process_1", "read `/proc/1/environ`", "EACCES"),
    ("read_the_memory_of_process_1", "read `/proc/1/mem`", "EACCES"),
    ("take_a_descriptor_of_process_1", "open `/proc/1/fd/0`", "EACCES"),
    ("enter_the_root_of_process_1", "go through `/proc/1/root`", "EACCES"),
    ("find_the_worker_s_variables", "find a variable of the worker in its environment", "none"),
    ("find_secrets_in_all_environments", "find a variable of the worker in any `/proc/PID/environ`", "none",
     "EACCES"),
    ("find_descriptors_that_were_left_open", "find a descriptor that was left open", "none"),
    ("signal_the_worker", "signal the worker", "ESRCH", "EPERM"),
    ("signal_another_program", "signal another program that runs", "ESRCH", "EPERM"),
    ("trace_the_parent", "`ptrace` its parent", "EPERM"),
    ("be_traced", "`ptrace(PTRACE_TRACEME)`", "EPERM"),
    ("read_the_parent_by_process_vm", "`process_vm_readv` of its parent", "EPERM"),
    ("write_the_parent_by_process_vm", "`process_vm_writev` of its parent", "EPERM"),
    ("take_a_descriptor_by_pidfd", "`pidfd_getfd`", "EPERM"),
    ("compare_with_the_parent", "`kcmp` with its parent", "EPERM"),
)  # fmt: skip

NAMESPACES: Final = _group(
    ("mount_something", "`mount`", "EPERM"),
    ("make_the_root_writable", "`mount` the root anew, writable", "EPERM"),
    ("unmount_proc", "`umount2`", "EPERM"),
    ("change_the_root", "`chroot`", "EPERM"),
    ("pivot_the_root", "`pivot_root`", "EPERM"),
    ("open_a_file_system", "`fsopen`", "EPERM"),
    ("clone_a_mount", "`open_tree`", "EPERM"),
    ("move_a_mount", "`move_mount`", "EPERM"),
    ("change_mount_attributes", "`mount_setattr`", "EPERM"),
    ("enter_a_user_namespace_of_one_s_own", "`unshare(CLONE_NEWUSER)`, to be root there", "EPERM"),
    ("enter_a_mount_namespace_of_one_s_own", "`unshare(CLONE_NEWNS)`", "EPERM"),
    ("enter_a_network_namespace_of_one_s_own", "`unshare(CLONE_NEWNET)`", "EPERM"),
    ("fork_into_a_user_namespace", "`clone(CLONE_NEWUSER)`", "EPERM"),
    ("fork_into_a_process_namespace", "`clone(CLONE_NEWPID)`", "EPERM"),
    ("fork_a_sibling", "`clone(CLONE_PARENT)`, a child of whoever started the program", "EPERM"),
    ("fork_by_clone3", "`clone3`, whose flags no filter sees", "ENOSYS"),
    ("enter_a_namespace_of_another", "`setns`", "EPERM"),
)

KERNEL: Final = _group(
    ("load_a_bpf_program", "`bpf`", "EPERM"),
    ("watch_performance", "`perf_event_open`", "EPERM"),
    ("handle_page_faults", "`userfaultfd`", "EPERM"),
    ("set_up_io_uring", "`io_uring_setup`", "EPERM"),
    ("use_a_keyring", "`keyctl`", "EPERM"),
    ("add_a_key", "`add_key`", "EPERM"),
    ("request_a_key", "`request_key`", "EPERM"),
    ("load_another_kernel", "`kexec_load`", "EPERM"),
    ("load_another_kernel_from_a_file", "`kexec_file_load`", "EPERM"),
    ("load_a_module", "`init_module`", "EPERM"),
    ("load_a_module_from_a_file", "`finit_module`", "EPERM"),
    ("remove_a_module", "`delete_module`", "EPERM"),
    ("reboot", "`reboot`", "EPERM"),
    ("turn_swap_on", "`swapon`", "EPERM"),
    ("set_the_clock", "`clock_settime`", "EPERM"),
    ("adjust_the_clock", "`clock_adjtime`", "EPERM"),
    ("set_the_time_of_day", "`settimeofday`", "EPERM"),
    ("rename_the_machine", "`sethostname`", "EPERM"),
    ("account_for_all_processes", "`acct`", "EPERM"),
    ("set_quotas", "`quotactl`", "EPERM"),
    ("open_a_file_by_its_handle", "`open_by_handle_at`", "EPERM"),
    ("get_a_file_s_handle", "`name_to_handle_at`", "EPERM"),
    ("watch_whole_file_systems", "`fanotify_init`", "EPERM"),
    ("read_the_log_by_a_call", "`syslog`", "EPERM"),
    ("turn_off_address_randomisation", "`personality`", "EPERM"),
    ("hide_memory", "`memfd_secret`", "EPERM"),
    ("move_pages_of_others", "`move_pages`", "EPERM"),
    ("install_a_filter_of_one_s_own", "`seccomp`", "EPERM"),
    ("make_a_call_that_is_not_known_yet", "a system call of a later kernel", "ENOSYS"),
    ("make_a_call_by_the_x32_numbers", "a system call by its x32 number", "ENOSYS", "ENOSYS", "x86_64"),
    ("make_a_call_as_a_32_bit_program", "a system call by `int 0x80`", "signal 31", "signal 31", "x86_64"),
    ("type_into_the_terminal", "`ioctl(TIOCSTI)`", "EPERM"),
    ("type_into_the_terminal_with_high_bits", "the same, with bits set that the kernel ignores", "EPERM"),
    ("reach_the_machine_s_ports", "`iopl`", "EPERM", "EPERM", "x86_64"),
)

PRIVILEGES: Final = _group(
    ("become_root", "`setuid(0)`", "EINVAL", "EPERM"),
    ("become_root_by_a_program", "have privileges, or get them by a set-user-id program", "none", "EACCES"),
    ("leave_groups", "`setgroups`", "EPERM"),
    ("take_capabilities", "`capset`", "EPERM"),
    ("raise_a_limit", "raise a hard limit", "EPERM"),
    ("be_first_on_the_processor", "a negative nice value", "EACCES or EPERM"),
    ("be_served_in_real_time", "`SCHED_FIFO`", "EPERM"),
    ("be_spared_when_memory_is_short", "lower its `oom_score_adj`", "EACCES"),
    ("change_a_setting_of_the_kernel", "write to `/proc/sys/kernel/core_pattern`", "EACCES"),
    ("press_the_magic_key", "write to `/proc/sysrq-trigger`", "EACCES or ENOENT"),
)

SOCKETS: Final = _group(
    ("open_a_stream_to_the_network", "a TCP socket", "EPERM"),
    ("open_a_stream_to_the_newer_network", "a TCP socket of IPv6", "EPERM"),
    ("send_names_to_a_name_server", "a UDP socket, for instance to let data out as names", "EPERM"),
    ("make_packets_of_one_s_own", "a raw socket", "EPERM"),
    ("listen_to_the_wire", "a packet socket", "EPERM"),
    ("talk_to_the_kernel_s_network", "a netlink socket", "EPERM"),
    ("reach_the_machine_below", "a vsock socket", "EPERM"),
    ("use_the_kernel_s_ciphers", "a socket of the kernel's ciphers (`AF_ALG`)", "EPERM"),
    ("open_a_unix_socket", "a Unix socket", "EPERM"),
    ("connect_to_an_abstract_socket", "connect to an abstract Unix socket of the machine", "EPERM"),
    ("pair_sockets_of_the_network", "a pair of TCP sockets", "EPERM"),
    ("pair_unix_sockets", "a pair of Unix sockets: it has to work, asyncio needs it", "paired"),
    ("share_memory_with_others", "attach to System V memory of another", "ENOENT", "EPERM"),
    ("share_a_queue_with_others", "open a message queue of another", "ENOENT", "EPERM"),
)

FLOODS: Final = _group(
    ("fill_the_disk", "1 GB into one file", "ENOSPC or EFBIG", "EFBIG"),
    ("fill_the_disk_with_many_files", "1 GB into many files", "ENOSPC", NOT_CLAIMED),
    ("fill_shared_memory", "1 GB into `/dev/shm`", "ENOSPC or EFBIG", "EACCES"),
    ("make_a_sparse_giant", "a sparse file of 1 TB", "EFBIG"),
    ("use_up_the_inodes", "200,000 empty files", "ENOSPC", NOT_CLAIMED),
    ("use_up_the_descriptors", "100,000 open descriptors", "EMFILE"),
    ("use_up_the_threads", "5,000 threads", "EAGAIN"),
    ("lock_all_memory", "lock more memory than it may", "ENOMEM or EAGAIN or EPERM"),
)

WHOLE: Final = _group(
    ("fork_bomb", "processes without end", "timeout"),
    ("memory_bomb", "memory without end", "oom or exited"),
    ("spin", "the processor without end", "cpu_timeout"),
    ("ignore_the_request_to_end", "ignore SIGTERM, for ever", "timeout"),
    ("leave_a_daemon", "fork twice into a session of its own, and end", "exited"),
    ("kill_everybody", "`kill(-1, SIGKILL)`", "exited"),
    ("kill_process_1", "`kill(1, SIGKILL)`", "exited"),
)
"""Whole programs, by the verdict that they get; what they leave is looked for as well. Memory without end exits, with a
`MemoryError`, only where no control group can be written to."""

GROUPS: Final = {
    "Files": FILES,
    "Other processes": PROCESSES,
    "The root and namespaces": NAMESPACES,
    "The kernel": KERNEL,
    "Privileges": PRIVILEGES,
    "Sockets and shared memory": SOCKETS,
    "Floods": FLOODS,
    "Whole programs": WHOLE,
}

SINGLE: Final = [
    escape for group, escapes in GROUPS.items() for escape in escapes if group != "Whole programs"
]  # fmt: skip

# Tries every way of sending a signal to the first process, by the number of each of its threads and of its group, and
# whatever else would hold it up. Prints those that the kernel or the filter lets through, and last that enough were tried.
# Whether the first process has outlived them is for the caller to see.
import ctypes, fcntl, os, signal, socket, struct, time

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    'x86_64': (62, 200, 234, 129, 297, 222, 56, 203, 141, 302, 109),
    'aarch64': (129, 130, 131, 138, 240, 107, 220, 122, 140, 261, 154),
}
(
    KILL, TKILL, TGKILL, QUEUE, THREAD_QUEUE, TIMER_CREATE, CLONE, AFFINITY, PRIORITY, LIMITS, GROUP,
) = NUMBERS[os.uname().machine]
PIDFD_SEND = 424
tried, through = 0, []


def call(number, *arguments):
    result = libc.syscall(number, *[ctypes.c_long(one) if isinstance(one, int) else one for one in arguments])
    return 0 if result >= 0 else ctypes.get_errno()


def tries(name, refused):
    global tried
    tried += 1
    if not refused:
        through.append(name)


def gives(own):
    """Whether the events of a descriptor could be made signals to whom `own` says."""
    near, far = socket.socketpair()
    try:
        fcntl.fcntl(near, 10, signal.SIGKILL)
        own(near)
    except OSError as error:
        return error.errno
    fcntl.fcntl(near, fcntl.F_SETFL, fcntl.fcntl(near, fcntl.F_GETFL) | 0o20000)
    far.send(b'x')
    return 0


threads = sorted(int(name) for name in os.listdir('/proc/1/task'))
information = ctypes.create_string_buffer(128)
for sent in [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGSEGV, signal.SIGHUP]:
    struct.pack_into('iii', information, 0, sent, 0, -1)
    for thread in threads:
        tries(f'kill {thread}', call(KILL, thread, sent))
        tries(f'tkill {thread}', call(TKILL, thread, sent))
        tries(f'tgkill {thread}', call(TGKILL, 1, thread, sent))
        tries(f'sigqueue {thread}', call(QUEUE, thread, sent, information))
        tries(f'thread sigqueue {thread}', call(THREAD_QUEUE, 1, thread, sent, information))
    tries('descriptor', call(PIDFD_SEND, os.open('/proc/1', os.O_RDONLY), sent, 0, 0))
for thread in threads + [-1]:
    number = struct.pack('i', thread)
    tries(f'owner {thread}', gives(lambda end: fcntl.fcntl(end, fcntl.F_SETOWN, thread)))
    for kind in range(3):
        extended = struct.pack('ii', kind, abs(thread))
        tries(f'owner {thread} of kind {kind}', gives(lambda end: fcntl.fcntl(end, 15, extended)))
    for request in [0x8901, 0x8902]:
        tries(f'owner {thread} by {request:x}', gives(lambda end: fcntl.ioctl(end, request, number)))
for thread in threads:
    event = ctypes.create_string_buffer(64)
    struct.pack_into('qiii', event, 0, 0, signal.SIGKILL, 4, thread)
    tries(f'timer {thread}', call(TIMER_CREATE, 0, event, ctypes.byref(ctypes.c_int())))
    tries(f'affinity {thread}', call(AFFINITY, thread, 8, ctypes.create_string_buffer(b'\1', 8)))
    tries(f'priority {thread}', call(PRIORITY, 0, thread, 19))
tries('limits', call(LIMITS, 1, 7, ctypes.create_string_buffer(16), None))
tries('its group', call(GROUP, 0, 1))

# One whose parent is the first process makes another child of it, and both end with a signal for their parent.
if os.fork() == 0:
    while os.getppid() != 1:
        # A subreaper may be between: that one is the shell, whose end the caller would see.
        if os.getppid() == int(open('/proc/self/stat').read().split()[5]):
            break
        time.sleep(0.01)
    if libc.syscall(CLONE, ctypes.c_long(0x8000 | signal.SIGKILL), None, None, None, None) == 0:
        os._exit(0)
    os._exit(0)
if os.fork() == 0:
    if libc.syscall(CLONE, ctypes.c_long(signal.SIGKILL), None, None, None, None) == 0:
        time.sleep(0.2)
    os._exit(0)

# What ordinary programs do.
near, far = socket.socketpair()
got = []
signal.signal(signal.SIGIO, lambda *_: got.append(1))
fcntl.fcntl(near, fcntl.F_SETOWN, os.getpid())
fcntl.fcntl(near, fcntl.F_SETFL, fcntl.fcntl(near, fcntl.F_GETFL) | 0o20000)
far.send(b'x')
end = time.time() + 5
while not got and time.time() < end:
    time.sleep(0.01)
assert got, 'a program can have its own events as signals'
signal.signal(signal.SIGIO, signal.SIG_IGN)
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
os.kill(child, signal.SIGTERM)
assert os.waitpid(child, 0)[1] == signal.SIGTERM, 'a program can signal its own'
os.kill(1, 0)

time.sleep(0.5)
for name in through:
    print(name)
print('tried', tried > 50)

// The scheduler behind emu.h: fibers, barriers, warp operations, checks.

#include "emu.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <csignal>
#include <vector>
#include <sys/mman.h>
#include <unistd.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emu {

Thread* current;
Dim3 block_index, block_size, grid_size;
// Bytes behind each piece of shared memory that must keep their poison.
const unsigned CANARY_ROOM = 1024;
const unsigned char POISON = 0xff;  // NaN
alignas(1024) unsigned char dynamic_shared[228 * 1024 + CANARY_ROOM];

namespace {

enum State { READY, AT_BARRIER, IN_WARP, DONE };

const int MAX_THREADS = 1024;
const unsigned MAX_SHARED = 227 * 1024;
const size_t STACK = 64 << 10;

// A piece of static shared memory.
struct Piece {
    const void* key;
    unsigned first, bytes;
};

// The operation that lanes of a warp have come to.
struct Meeting {
    u32 mask, arrived;
    const char* name;
    Collective f;
    const void* in[32];
    void* out[32];
};

struct Warp {
    u32 alive;
    // Lanes of one warp may meet in several groups with disjoint masks.
    std::vector<Meeting> meetings;
};

const Kernel* kernel;
void** arguments;
std::vector<Thread> threads;
std::vector<Warp> warps;
std::vector<Piece> pieces;
alignas(1024) unsigned char static_shared[48 * 1024 + 32 * CANARY_ROOM];
unsigned static_used;
unsigned char* stacks;

std::vector<Kernel>& table() {
    static std::vector<Kernel> all;
    return all;
}

// --- changing fibers ---------------------------------------------------------------------------

#if defined(__x86_64__)
void* scheduler;
extern "C" void emu_switch(void** save, void* to);
asm(R"(
.text
.globl emu_switch
.type emu_switch,@function
emu_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size emu_switch,.-emu_switch
)");
void leave() { emu_switch(&current->stack, scheduler); }
void resume(Thread& t) { emu_switch(&scheduler, t.stack); }
void prepare(Thread& t, void (*entry)()) {
    void** top = (void**)(stacks + STACK * (t.number + 1) - 64);
    *--top = nullptr;
    *--top = (void*)entry;
    top -= 6;
    memset(top, 0, 6 * sizeof(void*));
    t.stack = top;
}
#else
ucontext_t scheduler;
std::vector<ucontext_t> contexts(MAX_THREADS);
void leave() { swapcontext(&contexts[current->number], &scheduler); }
void resume(Thread& t) { swapcontext(&scheduler, &contexts[t.number]); }
void prepare(Thread& t, void (*entry)()) {
    ucontext_t& c = contexts[t.number];
    getcontext(&c);
    c.uc_stack.ss_sp = stacks + STACK * t.number;
    c.uc_stack.ss_size = STACK;
    c.uc_link = nullptr;
    makecontext(&c, entry, 0);
}
#endif

// --- warp operations ---------------------------------------------------------------------------

// Carries out a meeting whose lanes are all there; lanes that have returned do not take part.
void finish(Warp& warp, size_t at) {
    Meeting m = warp.meetings[at];
    warp.meetings.erase(warp.meetings.begin() + at);
    m.f(m.in, m.out);
    for (int lane = 0; lane < 32; lane++)
        if (m.arrived >> lane & 1) threads[(&warp - warps.data()) * 32 + lane].state = READY;
}

void finish_complete(Warp& warp) {
    for (size_t i = 0; i < warp.meetings.size(); i++)
        if (warp.meetings[i].arrived == (warp.meetings[i].mask & warp.alive)) finish(warp, i--);
}

void run_thread() {
    kernel->run(arguments);
    copy_commit();
    copy_wait(0);
    Thread& t = *current;
    t.state = DONE;
    warps[t.warp].alive &= ~(1u << t.lane);
    finish_complete(warps[t.warp]);
    leave();
    __builtin_unreachable();
}

// --- memory faults -----------------------------------------------------------------------------

void on_fault(int signal_number, siginfo_t* info, void*) {
    char text[256];
    // Bytes without a thread are not the kernels' business: Rust's own, for instance.
    int n = kernel && current
        ? snprintf(text, sizeof text,
            "cuda-emu: kernel %s, block (%u, %u, %u), thread (%u, %u, %u): bad access at %p\n",
            kernel->name, block_index.x, block_index.y, block_index.z, current->index.x,
            current->index.y, current->index.z, info->si_addr)
        : snprintf(text, sizeof text, "cuda-emu: host code: bad access at %p\n", info->si_addr);
    if (write(2, text, n) < 0) _exit(2);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

void catch_faults() {
    static bool once;
    if (!once) {
        once = true;
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &action, nullptr);
        sigaction(SIGBUS, &action, nullptr);
    }
    // A fiber's stack may be the thing that overflowed: each host thread needs another one.
    static thread_local bool armed;
    stack_t have;
    if (!armed && sigaltstack(nullptr, &have) == 0 && (have.ss_flags & SS_DISABLE)) {
        stack_t other = {};
        other.ss_size = 64 << 10;
        other.ss_sp = malloc(other.ss_size);
        sigaltstack(&other, nullptr);
    }
    armed = true;
}

// --- one block ---------------------------------------------------------------------------------

void check_canary(const unsigned char* at, const char* what, unsigned bytes) {
    for (unsigned i = 0; i < CANARY_ROOM; i++)
        if (at[i] != POISON) fail("wrote behind its %u bytes of %s shared memory", bytes, what);
}

void start_block(int n) {
    for (int i = 0; i < n; i++) {
        Thread& t = threads[i];
        t.number = i;
        t.lane = i % 32;
        t.warp = i / 32;
        unsigned u = i;
        t.index = {u % block_size.x, u / block_size.x % block_size.y, u / (block_size.x * block_size.y)};
        t.state = READY;
        t.copies_open = t.groups_open = 0;
        prepare(t, run_thread);
    }
    for (size_t w = 0; w < warps.size(); w++) {
        int lanes = std::min(32, n - (int)w * 32);
        warps[w].alive = lanes == 32 ? ~0u : (1u << lanes) - 1;
        warps[w].meetings.clear();
    }
}

// Nothing can run: either everyone alive is at the barrier, or the kernel hangs.
void release_barrier() {
    int waiting = 0, alive = 0;
    for (Thread& t : threads) {
        waiting += t.state == AT_BARRIER;
        alive += t.state != DONE;
    }
    if (waiting == alive) {
        for (Thread& t : threads)
            if (t.state == AT_BARRIER) t.state = READY;
        return;
    }
    for (Thread& t : threads)
        if (t.state == IN_WARP) {
            current = &t;
            const char* name = "?";
            for (Meeting& m : warps[t.warp].meetings)
                if (m.arrived >> t.lane & 1) name = m.name;
            fail("deadlock: this thread waits in %s, %d of %d threads wait at __syncthreads", name,
                waiting, alive);
        }
}

}  // namespace

void add(Kernel kernel) { table().push_back(kernel); }

const Kernel* find(const char* name) {
    for (Kernel& k : table())
        if (!strcmp(k.name, name)) return &k;
    return nullptr;
}

void fail(const char* format, ...) {
    fprintf(stderr, "cuda-emu: kernel %s, block (%u, %u, %u), ", kernel ? kernel->name : "?",
        block_index.x, block_index.y, block_index.z);
    if (current)
        fprintf(stderr, "thread (%u, %u, %u): ", current->index.x, current->index.y, current->index.z);
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fprintf(stderr, "\n");
    abort();
}

void* shared(const void* key, size_t bytes) {
    for (Piece& p : pieces)
        if (p.key == key) return static_shared + p.first;
    unsigned room = (bytes + 15) / 16 * 16 + CANARY_ROOM;
    if (static_used + room > sizeof static_shared) fail("more than 48 KB of static shared memory");
    pieces.push_back({key, static_used, (unsigned)bytes});
    memset(static_shared + static_used, POISON, room);
    static_used += room;
    return static_shared + pieces.back().first;
}

void barrier() {
    current->state = AT_BARRIER;
    leave();
}

void collect(u32 mask, const char* name, const void* in, void* out, Collective f) {
    Warp& warp = warps[current->warp];
    u32 own = 1u << current->lane;
    if (!(mask & own)) fail("%s: the mask %08x lacks the lane that calls", name, mask);
    size_t at = 0;
    while (at < warp.meetings.size() && !(warp.meetings[at].mask & mask)) at++;
    if (at == warp.meetings.size()) {
        warp.meetings.push_back({mask, 0, name, f, {}, {}});
    }
    Meeting& m = warp.meetings[at];
    if (m.mask != mask || m.f != f)
        fail("divergent warp: lanes %08x wait in %s with mask %08x, this one comes with %s and mask %08x",
            m.arrived, m.name, m.mask, name, mask);
    m.arrived |= own;
    m.in[current->lane] = in;
    m.out[current->lane] = out;
    current->state = IN_WARP;
    if (m.arrived == (mask & warp.alive)) finish(warp, at);
    else leave();
}

void copy_start(void* to, const void* from, int bytes, int valid) {
    Thread& t = *current;
    if ((uintptr_t)to % bytes || (uintptr_t)from % bytes) fail("cp.async: misaligned address");
    if (t.copies_open == MAX_COPIES) fail("cp.async: more than %d copies in flight", MAX_COPIES);
    t.copies[t.copies_open++] = {(unsigned char*)to, from, bytes, valid};
}

void copy_commit() {
    Thread& t = *current;
    if (t.groups_open == MAX_COPIES) fail("cp.async: more than %d groups in flight", MAX_COPIES);
    t.groups[t.groups_open++] = t.copies_open;
}

void copy_wait(int groups_left) {
    Thread& t = *current;
    int finished = t.groups_open - groups_left;
    if (finished <= 0) return;
    int n = t.groups[finished - 1];
    for (int i = 0; i < n; i++) {
        Copy& c = t.copies[i];
        memcpy(c.to, c.from, c.valid);
        memset(c.to + c.valid, 0, c.bytes - c.valid);
    }
    memmove(t.copies, t.copies + n, sizeof(Copy) * (t.copies_open - n));
    t.copies_open -= n;
    for (int i = finished; i < t.groups_open; i++) t.groups[i - finished] = t.groups[i] - n;
    t.groups_open -= finished;
}

// The threads of a block take turns in the order 0 .. n - 1 (order 0), backwards (1), or in an order
// drawn anew for each round (any other number seeds it).
bool launch(const Kernel* what, Dim3 grid, Dim3 block, unsigned shared, void** args, unsigned order) {
    u64 n = (u64)block.x * block.y * block.z;
    if (n < 1 || n > MAX_THREADS || block.z > 64 || shared > MAX_SHARED) return false;
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535)
        return false;
    catch_faults();
    if (!stacks)
        stacks = (unsigned char*)mmap(nullptr, STACK * MAX_THREADS, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    kernel = what;
    arguments = args;
    grid_size = grid;
    block_size = block;
    threads.resize(n);
    warps.resize((n + 31) / 32);
    std::vector<int> turn(n);
    for (u64 i = 0; i < n; i++) turn[i] = order == 1 ? n - 1 - i : i;
    u64 random = order * 0x9E3779B97F4A7C15ull + 1;
    auto draw = [&random](u64 below) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        return random % below;
    };
    for (u64 b = 0; b < (u64)grid.x * grid.y * grid.z; b++) {
        block_index = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
            (unsigned)(b / grid.x / grid.y)};
        memset(static_shared, POISON, static_used);
        memset(dynamic_shared, POISON, shared + CANARY_ROOM);
        pieces.clear();
        static_used = 0;
        start_block(n);
        for (u64 left = n; left > 0;) {
            bool ran = false;
            if (order > 1)
                for (u64 i = n - 1; i > 0; i--) std::swap(turn[i], turn[draw(i + 1)]);
            for (int i : turn) {
                Thread& t = threads[i];
                if (t.state != READY) continue;
                current = &t;
                resume(t);
                ran = true;
                left -= t.state == DONE;
            }
            current = nullptr;
            if (!ran) release_barrier();
        }
        check_canary(dynamic_shared + shared, "dynamic", shared);
        for (Piece& p : pieces) check_canary(static_shared + p.first + p.bytes, "static", p.bytes);
    }
    kernel = nullptr;
    return true;
}

}  // namespace emu

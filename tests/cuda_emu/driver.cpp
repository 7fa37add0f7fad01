// A stand-in for NVIDIA's libcuda.so.1 on a machine without a GPU: the entry points that the backend
// uses, with kernels run by the emulator. Work happens as late as the real driver may do it: when the
// host waits or copies something back. So page-locked memory that is written too early, or memory that is
// freed too early, shows.
//
// Environment: CUDA_EMU_FAIL=cuInit:100 makes an entry point return that CUresult; CUDA_EMU_CC (80),
// CUDA_EMU_VERSION (12000), CUDA_EMU_DEVICES (1) and CUDA_EMU_MEMORY (bytes) describe the device;
// CUDA_EMU_ORDER fixes the order in which threads take turns (see emu::launch), which otherwise changes
// from launch to launch. CUDA_EMU_COUNT=1 says at the end how often each kernel ran, and how many graphs.

#include "emu.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>
#include <sys/mman.h>

namespace {

typedef int Result;
typedef u64 Pointer;
enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    NO_SUCH_FUNCTION = 500,
    STREAM_CAPTURING = 900,
    NOT_CAPTURING = 901,
};

struct Graph {
    std::vector<std::function<void()>> work;
};
enum Mode { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };
struct Stream {
    Graph* capturing = nullptr;
    int mode = GLOBAL;
};
struct Event {
    std::chrono::steady_clock::time_point time;
    // Times that it was recorded, and times that this came to pass.
    u64 recorded = 0, passed = 0;
};
struct Module {
    std::string text;
};

const size_t PAGE = 4096;

// One lock for everything: the emulator runs one block of one kernel at a time.
std::recursive_mutex lock;
typedef std::lock_guard<std::recursive_mutex> Locked;
std::map<Pointer, size_t> allocations;
std::map<const char*, size_t> page_locked;
size_t used;
Stream null_stream;
// What all streams have been given, in order.
std::deque<std::function<void()>> waiting;
std::atomic<u64> launches, graph_launches;
std::map<std::string, u64> launches_of;
// Captures that forbid calls like those of `may_break_capture`: to all threads, and to their own.
std::atomic<int> global_captures;
thread_local int own_captures;
struct Count {
    ~Count() {
        if (!getenv("CUDA_EMU_COUNT")) return;
        for (auto& of : launches_of) fprintf(stderr, "cuda-emu: %s %llu\n", of.first.c_str(), of.second);
        fprintf(stderr, "cuda-emu: %llu kernels, %llu graphs\n", (u64)launches, (u64)graph_launches);
    }
} count;
thread_local void* context;
// How often this thread has called the entry points that COUNTED stands in.
thread_local std::map<std::string, u64> calls;

long setting(const char* name, long otherwise) {
    const char* value = getenv(name);
    return value ? atol(value) : otherwise;
}

// The result that CUDA_EMU_FAIL wants from `function`.
Result injected(const char* function) {
    const char* wanted = getenv("CUDA_EMU_FAIL");
    size_t n = strlen(function);
    return wanted && !strncmp(wanted, function, n) && wanted[n] == ':' ? atoi(wanted + n + 1) : SUCCESS;
}

Stream& stream_of(void* s) { return (uintptr_t)s > 2 ? *(Stream*)s : null_stream; }

Result enqueue(void* s, std::function<void()> work) {
    Locked locked(lock);
    Graph* graph = stream_of(s).capturing;
    if (graph) graph->work.push_back(work);
    else waiting.push_back(work);
    return SUCCESS;
}

// Does what was given so far, from the first on, until `enough` says so.
template <class F> void drain_until(F enough) {
    Locked locked(lock);
    while (!waiting.empty() && !enough()) {
        auto work = std::move(waiting.front());
        waiting.pop_front();
        work();
    }
}
void drain() {
    drain_until([] { return false; });
}

bool is_page_locked(const void* p) {
    Locked locked(lock);
    auto after = page_locked.upper_bound((const char*)p);
    if (after == page_locked.begin()) return false;
    --after;
    return (const char*)p < after->first + after->second;
}

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Every allocation ends at a page that cannot be touched (but for at most 15 bytes, checked when it is
// freed), and holds NaN.
Result allocate(Pointer* out, size_t bytes) {
    Locked locked(lock);
    if (!bytes) return INVALID_VALUE;
    size_t block = round_up(bytes, 16), pages = round_up(block, PAGE);
    if (used + pages > (size_t)setting("CUDA_EMU_MEMORY", 4l << 30)) drain();
    if (used + pages > (size_t)setting("CUDA_EMU_MEMORY", 4l << 30)) return OUT_OF_MEMORY;
    char* map = (char*)mmap(
        nullptr, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(map + pages, PAGE, PROT_NONE);
    memset(map, 0xff, pages);
    *out = (Pointer)(map + pages - block);
    allocations[*out] = bytes;
    used += pages;
    return SUCCESS;
}

void unmap(Pointer p, size_t bytes) {
    size_t block = round_up(bytes, 16), pages = round_up(block, PAGE);
    for (size_t i = bytes; i < block; i++)
        if (((unsigned char*)p)[i] != 0xff) {
            fprintf(stderr, "cuda-emu: some kernel wrote behind an allocation of %zu bytes\n", bytes);
            abort();
        }
    munmap((char*)p + block - pages, pages + PAGE);
    used -= pages;
}

// From now on the memory may not be used, but what was given before may still use it.
Result release(Pointer p) {
    Locked locked(lock);
    auto found = allocations.find(p);
    if (found == allocations.end()) return INVALID_VALUE;
    size_t bytes = found->second;
    allocations.erase(found);
    waiting.push_back([=] { unmap(p, bytes); });
    return SUCCESS;
}

bool inside(Pointer p, size_t bytes) {
    Locked locked(lock);
    auto after = allocations.upper_bound(p);
    if (after == allocations.begin()) return false;
    --after;
    return p + bytes <= after->first + after->second;
}

}  // namespace

// Memory, events, modules: calls that could wait for work that is being captured. As in the real driver a
// thread may not make them during a capture of its own, nor during anybody's that was begun as global.
bool may_break_capture() { return own_captures || global_captures; }

// Counts a capture that begins (1) or ends (-1).
void count_capture(int mode, int by) {
    if (mode == GLOBAL) global_captures += by;
    if (mode != RELAXED) own_captures += by;
}

#define API extern "C" __attribute__((visibility("default"))) Result
#define MAY_FAIL \
    if (Result failure = injected(__func__)) return failure
#define COUNTED calls[__func__]++
#define NOT_IN_CAPTURE \
    if (may_break_capture()) return STREAM_CAPTURING

// --- device and context ------------------------------------------------------------------------

API cuInit(unsigned) {
    MAY_FAIL;
    return SUCCESS;
}
API cuDriverGetVersion(int* version) {
    *version = (int)setting("CUDA_EMU_VERSION", 12000);
    return SUCCESS;
}
API cuDeviceGetCount(int* n) {
    *n = (int)setting("CUDA_EMU_DEVICES", 1);
    return SUCCESS;
}
API cuDeviceGet(int* device, int ordinal) {
    MAY_FAIL;
    if (ordinal >= setting("CUDA_EMU_DEVICES", 1)) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
API cuDeviceGetName(char* name, int room, int) {
    snprintf(name, room, "emulated GPU");
    return SUCCESS;
}
API cuDeviceGetUuid_v2(void* id, int) {
    memset(id, 0, 16);
    return SUCCESS;
}
API cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = setting("CUDA_EMU_MEMORY", 4l << 30);
    return SUCCESS;
}
API cuDeviceGetAttribute(int* value, int attribute, int) {
    long capability = setting("CUDA_EMU_CC", 80);
    switch (attribute) {
        case 1: *value = 1024; break;                    // threads in a block
        case 10: *value = 32; break;                     // threads in a warp
        case 16: *value = 4; break;                      // multiprocessors
        case 75: *value = (int)capability / 10; break;
        case 76: *value = (int)capability % 10; break;
        case 97: *value = 166912; break;                 // shared memory on request
        case 115: *value = 1; break;                     // memory pools
        default: *value = 0;
    }
    return SUCCESS;
}
API cuDevicePrimaryCtxRetain(void** c, int) {
    MAY_FAIL;
    *c = (void*)0x10;
    return SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxSetCurrent(void* c) {
    context = c;
    return SUCCESS;
}
API cuCtxGetCurrent(void** c) {
    *c = context;
    return SUCCESS;
}
API cuCtxSynchronize() {
    NOT_IN_CAPTURE;
    drain();
    return SUCCESS;
}
API cuMemGetInfo_v2(size_t* free, size_t* total) {
    *total = setting("CUDA_EMU_MEMORY", 4l << 30);
    *free = *total - used;
    return SUCCESS;
}
API cuDeviceGetDefaultMemPool(void** pool, int) {
    *pool = (void*)0x30;
    return SUCCESS;
}
API cuMemPoolSetAttribute(void*, int, void*) { return SUCCESS; }

// --- streams, events, graphs -------------------------------------------------------------------

API cuStreamCreate(void** s, unsigned) {
    *s = new Stream;
    return SUCCESS;
}
API cuStreamDestroy_v2(void* s) {
    drain();
    delete (Stream*)s;
    return SUCCESS;
}
API cuStreamSynchronize(void* s) {
    MAY_FAIL;
    NOT_IN_CAPTURE;
    COUNTED;
    drain();
    return SUCCESS;
}
API cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
API cuStreamBeginCapture_v2(void* s, int mode) {
    if ((uintptr_t)s <= 2 || stream_of(s).capturing) return STREAM_CAPTURING;
    stream_of(s).capturing = new Graph;
    stream_of(s).mode = mode;
    count_capture(mode, 1);
    return SUCCESS;
}
API cuStreamEndCapture(void* s, void** graph) {
    *graph = stream_of(s).capturing;
    if (!*graph) return NOT_CAPTURING;
    count_capture(stream_of(s).mode, -1);
    stream_of(s).capturing = nullptr;
    return SUCCESS;
}
API cuStreamIsCapturing(void* s, int* status) {
    *status = stream_of(s).capturing ? 1 : 0;
    return SUCCESS;
}
API cuGraphInstantiateWithFlags(void** executable, void* graph, u64) {
    *executable = new Graph(*(Graph*)graph);
    return SUCCESS;
}
API cuGraphDestroy(void* graph) {
    delete (Graph*)graph;
    return SUCCESS;
}
API cuGraphExecDestroy(void* graph) {
    delete (Graph*)graph;
    return SUCCESS;
}
API cuGraphUpload(void*, void*) { return SUCCESS; }
API cuGraphLaunch(void* graph, void* s) {
    MAY_FAIL;
    COUNTED;
    graph_launches++;
    for (auto& work : ((Graph*)graph)->work) enqueue(s, work);
    return SUCCESS;
}
API cuEventCreate(void** e, unsigned) {
    *e = new Event;
    return SUCCESS;
}
API cuEventDestroy_v2(void* e) {
    drain();
    delete (Event*)e;
    return SUCCESS;
}
API cuEventRecord(void* e, void* s) {
    Locked locked(lock);
    auto* event = (Event*)e;
    u64 number = ++event->recorded;
    return enqueue(s, [=] {
        event->time = std::chrono::steady_clock::now();
        event->passed = number;
    });
}
API cuEventSynchronize(void* e) {
    NOT_IN_CAPTURE;
    auto* event = (Event*)e;
    // Nobody waits for an event that was never recorded.
    if (event->recorded) COUNTED;
    drain_until([=] { return event->passed == event->recorded; });
    return SUCCESS;
}
API cuEventQuery(void*) {
    NOT_IN_CAPTURE;
    drain();
    return SUCCESS;
}
API cuEventElapsedTime(float* ms, void* from, void* to) {
    drain();
    *ms = std::chrono::duration<float, std::milli>(((Event*)to)->time - ((Event*)from)->time).count();
    return SUCCESS;
}

// --- memory ------------------------------------------------------------------------------------

API cuMemAlloc_v2(Pointer* p, size_t bytes) {
    MAY_FAIL;
    NOT_IN_CAPTURE;
    return allocate(p, bytes);
}
API cuMemFree_v2(Pointer p) {
    NOT_IN_CAPTURE;
    Result result = release(p);
    drain();
    return result;
}
API cuMemAllocAsync(Pointer* p, size_t bytes, void* s) {
    MAY_FAIL;
    return stream_of(s).capturing ? STREAM_CAPTURING : allocate(p, bytes);
}
API cuMemFreeAsync(Pointer p, void*) { return release(p); }
API cuMemHostAlloc(void** p, size_t bytes, unsigned) {
    NOT_IN_CAPTURE;
    Locked locked(lock);
    *p = malloc(bytes);
    if (!*p) return OUT_OF_MEMORY;
    page_locked[(char*)*p] = bytes;
    return SUCCESS;
}
API cuMemFreeHost(void* p) {
    NOT_IN_CAPTURE;
    Locked locked(lock);
    drain();
    page_locked.erase((char*)p);
    free(p);
    return SUCCESS;
}
API cuMemsetD8Async(Pointer p, unsigned char value, size_t bytes, void* s) {
    if (!inside(p, bytes)) return INVALID_VALUE;
    return enqueue(s, [=] { memset((void*)p, value, bytes); });
}
// Page-locked memory is read when its turn comes; any other is copied at once, and cannot be captured.
API cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, void* s) {
    if (!inside(to, bytes)) return INVALID_VALUE;
    if (is_page_locked(from)) return enqueue(s, [=] { memcpy((void*)to, from, bytes); });
    if (stream_of(s).capturing) return STREAM_CAPTURING;
    std::vector<char> copy((const char*)from, (const char*)from + bytes);
    return enqueue(s, [=] { memcpy((void*)to, copy.data(), bytes); });
}
API cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, void* s) {
    COUNTED;
    if (!inside(from, bytes)) return INVALID_VALUE;
    if (stream_of(s).capturing) return STREAM_CAPTURING;
    return enqueue(s, [=] { memcpy(to, (void*)from, bytes); });
}
API cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, void* s) {
    if (!inside(to, bytes) || !inside(from, bytes)) return INVALID_VALUE;
    return enqueue(s, [=] { memmove((void*)to, (void*)from, bytes); });
}

// --- modules and kernels -----------------------------------------------------------------------

API cuModuleLoadData(void** m, const void* image) {
    MAY_FAIL;
    NOT_IN_CAPTURE;
    if (!image) return INVALID_VALUE;
    *m = new Module{(const char*)image};
    return SUCCESS;
}
API cuModuleUnload(void* m) {
    delete (Module*)m;
    return SUCCESS;
}
// A kernel must be in the text of the module as well as among the emulated ones.
API cuModuleGetFunction(void** f, void* m, const char* name) {
    *f = nullptr;
    if (((Module*)m)->text.find(std::string(".entry ") + name + "(") == std::string::npos)
        return NO_SUCH_FUNCTION;
    *f = (void*)emu::find(name);
    return *f ? SUCCESS : NO_SUCH_FUNCTION;
}
API cuFuncSetAttribute(void*, int, int) { return SUCCESS; }
API cuFuncGetAttribute(int* value, int, void*) {
    *value = 0;
    return SUCCESS;
}
API cuLaunchKernel(
    void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned shared, void* s, void** args, void**) {
    MAY_FAIL;
    COUNTED;
    auto* kernel = (const emu::Kernel*)f;
    if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || !bx || !by || !bz || bx * by * bz > 1024)
        return INVALID_VALUE;
    // Arguments are copied now, as the driver does.
    int bytes[64], n = kernel->sizes(bytes);
    std::vector<std::vector<char>> values(n);
    for (int i = 0; i < n; i++) values[i].assign((char*)args[i], (char*)args[i] + bytes[i]);
    return enqueue(s, [=]() mutable {
        std::vector<void*> pointers;
        for (auto& value : values) pointers.push_back(value.data());
        u64 number = launches++;
        launches_of[kernel->name]++;
        unsigned order = (unsigned)setting("CUDA_EMU_ORDER", number % 3 < 2 ? number % 3 : number + 2);
        if (!emu::launch(kernel, {gx, gy, gz}, {bx, by, bz}, shared, pointers.data(), order))
            emu::fail("kernel %s: geometry that no device takes", kernel->name);
    });
}

API cuGetErrorName(Result code, const char** name) {
    static thread_local std::string text;
    text = "CUDA_ERROR_" + std::to_string(code);
    *name = text.c_str();
    return SUCCESS;
}
API cuGetErrorString(Result code, const char** text) { return cuGetErrorName(code, text); }
API cuProfilerStart() { return SUCCESS; }
API cuProfilerStop() { return SUCCESS; }

// For tests: how often the calling thread has called an entry point.
extern "C" __attribute__((visibility("default"))) u64 cuda_emu_calls(const char* name) { return calls[name]; }

// Runs one kernel of planted.cu on 64 numbers, in the given order of threads, and prints them.
#include "planted.cu"
EMU_REGISTER(correct)
EMU_REGISTER(missing_barrier)
EMU_REGISTER(never_written)
EMU_REGISTER(read_behind)
EMU_REGISTER(write_behind)
EMU_REGISTER(divergent_barrier)
EMU_REGISTER(lane_outside_of_mask)
EMU_REGISTER(behind_static_shared)
EMU_REGISTER(behind_dynamic_shared)
EMU_REGISTER(correct_copy)
EMU_REGISTER(wrong_wait_count)
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

int main(int, char** words) {
    // The numbers end where memory ends, as those of the stand-in driver do.
    char* map = (char*)mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(map + 4096, 4096, PROT_NONE);
    float* x = (float*)(map + 4096) - 64;
    for (int i = 0; i < 64; i++) x[i] = (float)i;
    void* arguments[] = {&x};
    if (!emu::launch(emu::find(words[1]), {1, 1, 1}, {64, 1, 1}, 256, arguments, atoi(words[2]))) return 3;
    for (int i = 0; i < 64; i++) printf("%g ", x[i]);
}

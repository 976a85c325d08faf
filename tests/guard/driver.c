// One evaluation of a problem out of a file by a compiled library of kernels, for counting instructions:
//     driver LIBRARY IMAGE
// IMAGE: size, number of pointers, offset of the Problem; where the pointers are; then the memory, in which pointers are
// offsets into itself.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  int64_t head[3];
  void* library = argc == 3 ? dlopen(argv[1], RTLD_NOW) : 0;
  FILE* file = argc == 3 ? fopen(argv[2], "rb") : 0;
  if (!library || !file || fread(head, 8, 3, file) != 3) return 1;
  int64_t* pointers = malloc(8 * head[1]);
  char* memory = aligned_alloc(64, head[0]);
  if (fread(pointers, 8, head[1], file) != (size_t)head[1] || fread(memory, 1, head[0], file) != (size_t)head[0]) return 1;
  for (int64_t i = 0; i < head[1]; i++) *(char**)(memory + pointers[i]) = memory + *(int64_t*)(memory + pointers[i]);
  ((void (*)(void*, int))dlsym(library, "evaluate"))(memory + head[2], 1);
  return fwrite(memory, 1, head[0], stdout) != (size_t)head[0];
}

// Stands between a program and the C library (LD_PRELOAD) and makes a folder look as through a network file system with
// caches: what processes of the other node have made there is not found for LATE_SECONDS, whether it is opened or only
// looked at, and each look at a file takes a few random milliseconds. Listing a folder, creating with O_EXCL and
// removing ask the server, as they do in NFS.
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <dlfcn.h>
#include <fcntl.h>
#include <random>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

namespace {
const char* folder = getenv("LATE_FOLDER");
// folders with a file for each inode that this node, and the other one, has made
const char *own = getenv("LATE_OWN"), *others = getenv("LATE_OTHERS");
const double seconds = getenv("LATE_SECONDS") ? atof(getenv("LATE_SECONDS")) : 0.0;

template <class F> F real(const char* name) { return reinterpret_cast<F>(dlsym(RTLD_NEXT, name)); }

bool here(int at, const char* path) {
    char whole[8192];
    if (folder == nullptr || path == nullptr || path[0] == 0 || strcmp(path, ".") == 0) return false;
    if (path[0] == '/') return strncmp(path, folder, strlen(folder)) == 0;
    char link[64];
    snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
    const ssize_t n = syscall(SYS_readlink, link, whole, sizeof whole - 1);
    if (n <= 0) return false;
    whole[n] = 0;
    return strncmp(whole, folder, strlen(folder)) == 0;
}

bool look(int at, const char* path, struct statx* found) {
    return syscall(SYS_statx, at, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, found) == 0;
}

void mark_of(const char* node, const struct statx& found, char* out) {
    snprintf(out, 4096, "%s/%llu", node, (unsigned long long)found.stx_ino);
}

// This node has made or renamed the file.
void made(int at, const char* path) {
    struct statx found;
    const int before = errno;
    char mark[4096];
    if (here(at, path) && look(at, path, &found)) {
        mark_of(others, found, mark);
        syscall(SYS_unlinkat, AT_FDCWD, mark, 0);
        mark_of(own, found, mark);
        const long d = syscall(SYS_openat, AT_FDCWD, mark, O_WRONLY | O_CREAT, 0600);
        if (d >= 0) syscall(SYS_close, d);
    }
    errno = before;
}

// Another node made it a moment ago.
bool late(int at, const char* path) {
    if (!here(at, path)) return false;
    thread_local std::mt19937 random(getpid() ^ (unsigned)time(nullptr));
    usleep(random() % 4000);
    struct statx found;
    char mark[4096];
    if (!look(at, path, &found)) return false;
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const double age = (now.tv_sec - found.stx_btime.tv_sec) + 1e-9 * (now.tv_nsec - (double)found.stx_btime.tv_nsec);
    mark_of(others, found, mark);
    return age < seconds && syscall(SYS_faccessat, AT_FDCWD, mark, F_OK) == 0;
}

int not_found() {
    errno = ENOENT;
    return -1;
}

int opened(int at, const char* path, int flags, mode_t mode) {
    const bool creates = flags & O_CREAT;
    if (!creates && !(flags & O_DIRECTORY) && late(at, path)) return not_found();
    struct statx found;
    const bool was = creates && look(at, path, &found);
    const int d = (int)syscall(SYS_openat, at, path, flags, mode);
    if (d >= 0 && creates && !was) made(at, path);
    return d;
}
}  // namespace

extern "C" {
#include "../opening.h"
FILE* fopen64(const char* path, const char* how) {
    static const auto f = real<FILE* (*)(const char*, const char*)>("fopen64");
    if (how[0] == 'r' && late(AT_FDCWD, path)) return not_found(), nullptr;
    return f(path, how);
}
FILE* fopen(const char* path, const char* how) { return fopen64(path, how); }

int renameat(int a, const char* from, int b, const char* to) {
    static const auto f = real<int (*)(int, const char*, int, const char*)>("renameat");
    const int result = f(a, from, b, to);
    if (result == 0) made(b, to);
    return result;
}
int renameat2(int a, const char* from, int b, const char* to, unsigned flags) {
    static const auto f = real<int (*)(int, const char*, int, const char*, unsigned)>("renameat2");
    const int result = f(a, from, b, to, flags);
    if (result == 0) made(b, to);
    return result;
}
int rename(const char* from, const char* to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }
int mkdirat(int at, const char* path, mode_t mode) {
    static const auto f = real<int (*)(int, const char*, mode_t)>("mkdirat");
    const int result = f(at, path, mode);
    if (result == 0) made(at, path);
    return result;
}
int mkdir(const char* path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int fstatat(int at, const char* path, struct stat* out, int flags) {
    static const auto f = real<int (*)(int, const char*, struct stat*, int)>("fstatat");
    return late(at, path) ? not_found() : f(at, path, out, flags);
}
int fstatat64(int at, const char* path, struct stat64* out, int flags) {
    return fstatat(at, path, reinterpret_cast<struct stat*>(out), flags);
}
int stat(const char* path, struct stat* out) { return fstatat(AT_FDCWD, path, out, 0); }
int stat64(const char* path, struct stat64* out) { return fstatat64(AT_FDCWD, path, out, 0); }
int lstat(const char* path, struct stat* out) { return fstatat(AT_FDCWD, path, out, AT_SYMLINK_NOFOLLOW); }
int lstat64(const char* path, struct stat64* out) { return fstatat64(AT_FDCWD, path, out, AT_SYMLINK_NOFOLLOW); }
int __xstat64(int, const char* path, struct stat64* out) { return stat64(path, out); }
int __lxstat64(int, const char* path, struct stat64* out) { return lstat64(path, out); }
int __xstat(int, const char* path, struct stat* out) { return stat(path, out); }
int __lxstat(int, const char* path, struct stat* out) { return lstat(path, out); }
int faccessat(int at, const char* path, int mode, int flags) {
    static const auto f = real<int (*)(int, const char*, int, int)>("faccessat");
    return late(at, path) ? not_found() : f(at, path, mode, flags);
}
int access(const char* path, int mode) { return faccessat(AT_FDCWD, path, mode, 0); }
}

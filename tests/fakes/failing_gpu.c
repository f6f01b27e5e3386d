/* A Vulkan driver that passes everything to SwiftShader's and fails when it is told to: the file that GPU_FAULT names has
 * "lost" in it, and each submission loses the device, or "abort", and compiling a kernel ends the process.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VK_ERROR_DEVICE_LOST = -4 };
typedef void (*Function)(void);
typedef Function (*Get)(void *, const char *);
typedef int (*Submit)(void *, uint32_t, const void *, void *);
typedef int (*Compile)(void *, void *, uint32_t, const void *, const void *, void *);

static Get of_device;
static Submit submit;
static Compile compile;

static void *driver(const char *name)
{
    static void *library;
    if (!library && !(library = dlopen("libvk_swiftshader.so", RTLD_NOW)))
        abort();
    return dlsym(library, name);
}

static int told(const char *what)
{
    char words[16] = "";
    const char *path = getenv("GPU_FAULT");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file)
        return 0;
    if (!fgets(words, sizeof words, file))
        words[0] = 0;
    fclose(file);
    return !strcmp(words, what);
}

static int failing_submit(void *queue, uint32_t count, const void *infos, void *fence)
{
    return told("lost") ? VK_ERROR_DEVICE_LOST : submit(queue, count, infos, fence);
}

static int failing_compile(void *device, void *cache, uint32_t count, const void *infos, const void *allocator, void *made)
{
    if (told("abort"))
        abort();
    return compile(device, cache, count, infos, allocator, made);
}

static Function get_of_device(void *device, const char *name);

static Function ours(const char *name, Function found)
{
    if (found && !strcmp(name, "vkQueueSubmit")) {
        submit = (Submit)found;
        return (Function)failing_submit;
    }
    if (found && !strcmp(name, "vkCreateComputePipelines")) {
        compile = (Compile)found;
        return (Function)failing_compile;
    }
    if (found && !strcmp(name, "vkGetDeviceProcAddr")) {
        of_device = (Get)found;
        return (Function)get_of_device;
    }
    return found;
}

static Function get_of_device(void *device, const char *name)
{
    return ours(name, of_device(device, name));
}

Function vk_icdGetInstanceProcAddr(void *instance, const char *name)
{
    return ours(name, ((Get)driver("vk_icdGetInstanceProcAddr"))(instance, name));
}

Function vk_icdGetPhysicalDeviceProcAddr(void *instance, const char *name)
{
    return ((Get)driver("vk_icdGetPhysicalDeviceProcAddr"))(instance, name);
}

int vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version)
{
    return ((int (*)(uint32_t *))driver("vk_icdNegotiateLoaderICDInterfaceVersion"))(version);
}

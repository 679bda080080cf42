/* dormice-guest BOOT_ID [HOME]       process 1 of a machine (main.c)
   dormice-guest TOOL [ARGUMENT...]   a tool for work inside it, run like any command (tools/) */
#include "guest.h"
#include "tools/tools.h"

int main(int argc, char **argv)
{
    const struct tool *tool = argc > 1 ? tool_find(argv[1]) : NULL;
    if (tool)
        return tool->run(argc - 1, argv + 1);
    guest_run(argc, argv);
}

#include "common/base/program.h"
#include "state/commands.h"

int main(int argc, char** argv) {
  return fantail::run_commands(argc, argv, "fantail-state",
                               "A shared dictionary of JSON values, broadcast as it changes.",
                               fantail::state::commands());
}

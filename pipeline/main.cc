#include "common/base/program.h"
#include "pipeline/commands.h"

int main(int argc, char** argv) {
  return fantail::run_commands(argc, argv, "fantail-pipeline", "Work handed to workers, results collected.",
                               fantail::pipeline::commands());
}

#include "producer/file_system.h"

#include <gtest/gtest.h>
#include <linux/magic.h>

namespace fantail {
namespace {

TEST(FileSystem, NetworkKindsAreKnown) {
  for (const std::uint32_t kind : {std::uint32_t{NFS_SUPER_MAGIC}, std::uint32_t{SMB_SUPER_MAGIC},
                                   std::uint32_t{V9FS_MAGIC}, std::uint32_t{CODA_SUPER_MAGIC}, 0x65735546U}) {
    EXPECT_TRUE(is_network_file_system(kind)) << std::hex << kind;
  }
  for (const std::uint32_t kind : {std::uint32_t{EXT4_SUPER_MAGIC}, std::uint32_t{TMPFS_MAGIC},
                                   std::uint32_t{BTRFS_SUPER_MAGIC}, std::uint32_t{OVERLAYFS_SUPER_MAGIC}}) {
    EXPECT_FALSE(is_network_file_system(kind)) << std::hex << kind;
  }
}

TEST(FileSystem, OneOfThisHostIsNone) {
  EXPECT_FALSE(on_network_file_system("/proc"));
  EXPECT_FALSE(on_network_file_system("/nonexistent"));
}

}  // namespace
}  // namespace fantail

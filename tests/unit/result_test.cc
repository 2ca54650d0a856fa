#include "common/base/result.h"

#include <gmock/gmock.h>

#include <cerrno>

namespace fantail {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

struct Case {
  int error_number;
  ErrorCode code;
};

TEST(ResultTest, ErrnoValuesThatCallersBranchOnHaveTheirOwnCode) {
  for (const Case c : {
           Case{ENOSPC, ErrorCode::kNoSpace},
           Case{EDQUOT, ErrorCode::kNoSpace},
           Case{ENOENT, ErrorCode::kNotFound},
           Case{EAGAIN, ErrorCode::kWouldBlock},
           Case{EBUSY, ErrorCode::kBusy},
           Case{EIO, ErrorCode::kIo},
           Case{EACCES, ErrorCode::kIo},
           Case{0, ErrorCode::kIo},
       }) {
    EXPECT_EQ(fail_errno(c.error_number, "x").value().code, c.code) << c.error_number;
  }
}

TEST(ResultTest, SentenceNamesTheObjectFirstAndThenTheCause) {
  const Status status = fail_errno(ENOSPC, "writing /var/lib/a");
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().context, StartsWith("writing /var/lib/a: "));
  EXPECT_THAT(status.error().context, HasSubstr("No space left"));
}

}  // namespace
}  // namespace fantail

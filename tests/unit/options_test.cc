#include "common/base/options.h"

#include <gmock/gmock.h>

#include <fstream>

namespace fantail {
namespace {

using testing::HasSubstr;

class OptionsTest : public testing::Test {
 protected:
  /// What parsing these arguments came to; what it told is in `told`.
  OptionSet::Outcome parse(std::vector<const char*> arguments) {
    OptionSet options("program", "program [options]", "Does nothing.");
    options.seconds("pause", pause, "wait so long");
    options.seconds("every", every, "do it this often", 100ms);
    arguments.insert(arguments.begin(), "program");
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const auto outcome =
        options.parse(static_cast<int>(arguments.size()), arguments.data(), [] { return std::vector<std::string>(); });
    told = testing::internal::GetCapturedStderr();
    shown = testing::internal::GetCapturedStdout();
    return outcome;
  }
  Duration pause = 1s;
  Duration every = 1s;
  std::string told;
  std::string shown;
};

TEST_F(OptionsTest, WhatIsDoneTooOftenIsRefusedWithReasonAndRemedy) {
  for (const char* text : {"0", "0.09"}) {
    EXPECT_EQ(parse({"--every", text}), OptionSet::Outcome::kUsageError);
    EXPECT_THAT(told, HasSubstr(std::string("--every '") + text + "': would keep a processor busy; use 0.1 seconds"));
  }
  EXPECT_EQ(every, 1s) << "left as it was";
  EXPECT_EQ(parse({"--every", "0.1"}), OptionSet::Outcome::kRun);
  EXPECT_EQ(every, 100ms);
}

TEST_F(OptionsTest, WhatIsNoNumberOfSecondsIsRefusedWithWhatIs) {
  for (const char* text : {"soon", "-1", "inf", "1e99"}) {
    EXPECT_EQ(parse({"--every", text}), OptionSet::Outcome::kUsageError);
    EXPECT_THAT(told, HasSubstr("must be a number of seconds, 0.1 or more"));
  }
}

TEST_F(OptionsTest, WhereNothingIsRepeatedNoTimeIsTooShort) {
  EXPECT_EQ(parse({"--pause", "0"}), OptionSet::Outcome::kRun);
  EXPECT_EQ(pause, 0s);
}

TEST_F(OptionsTest, ANegativeNumberIsAnArgument) {
  EXPECT_EQ(parse({"-5"}), OptionSet::Outcome::kUsageError);
  EXPECT_THAT(told, HasSubstr("unexpected argument '-5'"));
  EXPECT_EQ(parse({"-.5e3"}), OptionSet::Outcome::kUsageError);
  EXPECT_THAT(told, HasSubstr("unexpected argument '-.5e3'"));
  EXPECT_EQ(parse({"-x"}), OptionSet::Outcome::kUsageError);
  EXPECT_THAT(told, HasSubstr("unknown option"));
}

TEST_F(OptionsTest, AConfigFileMayBeginWithAByteOrderMark) {
  const std::string path = testing::TempDir() + "options_test.ini";
  std::ofstream(path) << "\xEF\xBB\xBFpause = 7\n# comment\nevery = 3\n";
  EXPECT_EQ(parse({"--config", path.c_str()}), OptionSet::Outcome::kRun) << told;
  EXPECT_EQ(pause, 7s);
  EXPECT_EQ(every, 3s);
}

TEST_F(OptionsTest, HelpTellsTheLeast) {
  EXPECT_EQ(parse({"--help"}), OptionSet::Outcome::kExitOk);
  EXPECT_THAT(shown, HasSubstr("do it this often, at least 0.1 (default 1)"));
}

}  // namespace
}  // namespace fantail

#include "producer/absences.h"

#include <gmock/gmock.h>

namespace fantail {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class AbsencesTest : public testing::Test {
 protected:
  void connect(const std::string& name) { ledger.seen(name, {}, {}, true); }
  void disconnect(const std::string& name) { ledger.disconnected(name, {}); }
  std::vector<std::string> look_after(Duration passed) { return absences.look(ledger, now += passed, 24h); }

  CommitLedger ledger;
  Absences absences;
  MonoTime now{};
};

TEST_F(AbsencesTest, WhoIsConnectedIsNeverAway) {
  connect("a");
  EXPECT_THAT(look_after(0s), IsEmpty());
  EXPECT_THAT(look_after(1000h), IsEmpty());
  EXPECT_EQ(absences.away("a", now), 0s);
}

TEST_F(AbsencesTest, WhoIsAwayForTheWholeLimitIsTold) {
  connect("a");
  disconnect("a");
  look_after(0s);
  EXPECT_THAT(look_after(24h - 1s), IsEmpty());
  EXPECT_THAT(look_after(1s), ElementsAre("a"));
}

TEST_F(AbsencesTest, WhoComesBackBeginsAnew) {
  connect("a");
  disconnect("a");
  look_after(0s);
  look_after(23h);
  connect("a");
  look_after(1s);
  disconnect("a");
  look_after(1s);
  EXPECT_THAT(look_after(23h), IsEmpty());
  EXPECT_THAT(look_after(1h), ElementsAre("a"));
}

TEST_F(AbsencesTest, EarlierRunsCountAndTheTimeBetweenThemDoesNot) {
  ledger.seen("a", {}, {}, false);
  absences.load("a", 20h);
  now += 1000h;  // since whenever its clock began
  EXPECT_THAT(look_after(0s), IsEmpty());
  EXPECT_EQ(absences.all(now).at("a"), 20h);
  EXPECT_THAT(look_after(4h), ElementsAre("a"));
}

TEST_F(AbsencesTest, WhoIsForgottenIsNotKept) {
  ledger.seen("a", {}, {}, false);
  look_after(0s);
  ledger.forget_consumer("a");
  absences.forget("a");
  look_after(1h);
  EXPECT_THAT(absences.all(now), IsEmpty());
}

}  // namespace
}  // namespace fantail

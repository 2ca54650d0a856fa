#include "consumer/multiline.h"

#include <gmock/gmock.h>

#include <functional>

#include "consumer/record_assembler.h"

namespace fantail {
namespace {

using testing::ElementsAre;

Regex regex(const std::string& text) { return *Regex::compile("--flag", text); }

/// The records that `rule` makes of a text.
std::vector<std::string> records(MultilineRule rule, std::string_view text) {
  RecordContext context;
  context.rules.multiline = std::make_shared<const MultilineRule>(std::move(rule));
  RecordAssembler assembler({}, context);
  std::vector<std::string> out;
  const auto note = [&](FileOffset, std::string_view record) { out.emplace_back(record); };
  assembler.feed(as_bytes(text), {}, note);
  assembler.finish(note);
  return out;
}

/// Texts that belong together are given as one; between them are newlines.
void expect_records(std::string_view preset, const std::vector<std::string>& expected) {
  std::string text;
  for (const auto& record : expected) text += record + "\n";
  EXPECT_EQ(records(*MultilineRule::preset(preset), text), expected);
}

TEST(MultilineTest, Java) {
  expect_records("java", {"12:00:00 INFO begins",
                          "java.lang.IllegalStateException: cannot go on\n"
                          "\tat com.example.Shop.sell(Shop.java:21) ~[shop.jar:1.0]\n"
                          "\tat java.base/java.lang.Thread.run(Thread.java:833)\n"
                          "\tSuppressed: java.io.IOException: closed\n"
                          "\t\tat com.example.Door.close(Door.java:7)\n"
                          "\t\t... 2 more\n"
                          "Caused by: java.lang.NullPointerException: x is null\n"
                          "\tat com.example.Shop.find(Shop.java:40)\n"
                          "\t... 12 common frames omitted\n"
                          "\t[CIRCULAR REFERENCE: java.lang.IllegalStateException]",
                          "12:00:01 INFO at home again", "  indented, but no frame", "",
                          "System.Exception: from elsewhere\n   at App.Main() in App.cs:line 3\n   --- End of inner "
                          "exception stack trace ---",
                          "last"});
}

TEST(MultilineTest, Python) {
  expect_records("python", {"ERROR:root:it failed",
                            "Traceback (most recent call last):\n"
                            "  File \"a.py\", line 3, in <module>\n"
                            "    f()\n"
                            "    ^^^\n"
                            "  [Previous line repeated 3 more times]\n"
                            "shop.errors.NotFound: no such thing: 'x'",
                            "INFO:root:next",
                            "Traceback (most recent call last):\n"
                            "  File \"b.py\", line 1, in f\n"
                            "KeyError: 'a'\n"
                            "\n"
                            "During handling of the above exception, another exception occurred:\n"
                            "\n"
                            "Traceback (most recent call last):\n"
                            "  File \"b.py\", line 3, in f\n"
                            "KeyboardInterrupt",
                            "", "", "INFO: a blank line is no chain",
                            "Traceback (most recent call last):\n"
                            "  File \"c.py\", line 1, in f\n"
                            "ValueError",
                            "Traceback (most recent call last):\n"
                            "  File \"d.py\", line 1, in f\n"
                            "ValueError",
                            "",
                            "  + Exception Group Traceback (most recent call last):\n"
                            "  |   File \"e.py\", line 1, in <module>\n"
                            "  | ExceptionGroup: two (2 sub-exceptions)\n"
                            "  +-+---------------- 1 ----------------\n"
                            "    | ValueError: 1\n"
                            "    +------------------------------------",
                            "INFO: no exception", "  indented"});
}

TEST(MultilineTest, Go) {
  expect_records(
      "go",
      {"2026/01/02 starting",
       "panic: runtime error: index out of range [5] with length 3 [recovered]\n"
       "\tpanic: again\n"
       "[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x4a3f3f]\n"
       "\n"
       "goroutine 1 [running]:\n"
       "panic({0x45a0e0, 0x4a5e08})\n"
       "\t/usr/lib/go/src/runtime/panic.go:884 +0x212\n"
       "main.(*Shop).Sell(0xc000012345, {0x1, 0x2})\n"
       "\t/src/shop.go:8 +0x1d\n"
       "created by main.main in goroutine 1\n"
       "\t/src/shop.go:4 +0x25\n"
       "\n"
       "goroutine 18 [chan receive, 2 minutes]:\n"
       "main.wait(...)\n"
       "\t/src/wait.go:3",
       "exit status 2",
       "fatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1 [chan receive]:\nmain.main()\n\t/a.go:3", "",
       "", "INFO done (all of it)",
       "2026/01/02 15:04:05 http: panic serving 127.0.0.1:4711: boom\ngoroutine 7 "
       "[running]:\nnet/http.(*conn).serve.func1()\n\t/x.go:1",
       "INFO next", "  indented"});
}

TEST(MultilineTest, Indent) {
  expect_records("indent", {"a\n b\n\tc", "", "d", "e\n  f\n   "});
  EXPECT_THAT(records(*MultilineRule::preset("indent"), " the first\nline\n"), ElementsAre(" the first", "line"));
}

TEST(MultilineTest, OwnRules) {
  EXPECT_THAT(records(MultilineRule::custom(regex("^\\d"), std::nullopt), "a\nb\n1\nc\nd\n2\n3\n"),
              ElementsAre("a\nb", "1\nc\nd", "2", "3"));
  EXPECT_THAT(records(MultilineRule::custom(std::nullopt, regex("^\\+")), "a\n+b\nc\n+d\n+e\n"),
              ElementsAre("a\n+b", "c\n+d\n+e"));
  EXPECT_THAT(records(MultilineRule::custom(regex("^\\d"), regex("^[+\\d]")), "+a\n+b\n1\n+c\nd\n+e\n2\n3\n+f\n"),
              ElementsAre("+a", "+b", "1\n+c", "d", "+e", "2", "3\n+f"))
      << "both: only behind a start";
}

}  // namespace
}  // namespace fantail

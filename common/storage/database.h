#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace fantail {

/// A prepared statement; reset it to run it again. Belongs to its Database's thread and must not outlive it.
class Statement {
 public:
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&& other) noexcept;
  ~Statement();

  /// Parameters count from 1. Texts are copied.
  Statement& bind(int index, std::int64_t value);
  Statement& bind(int index, std::uint64_t value) { return bind(index, static_cast<std::int64_t>(value)); }
  Statement& bind(int index, std::string_view text);

  /// True: a row is there. False: done.
  Result<bool> step();
  /// Steps to the end and resets, for statements without rows.
  Status run();
  void reset();

  /// Columns count from 0 and borrow until the next step.
  std::int64_t integer(int column) const;
  std::uint64_t unsigned_integer(int column) const { return static_cast<std::uint64_t>(integer(column)); }
  std::string text(int column) const;

 private:
  friend class Database;
  explicit Statement(sqlite3_stmt* handle) : handle_(handle) {}
  sqlite3_stmt* handle_ = nullptr;
};

/// One SQLite file in WAL mode. A committed transaction survives the death of the process always, and the loss of power
/// when it was committed with Durability::kPowerLoss. One thread.
class Database {
 public:
  enum class Durability : std::uint8_t { kProcessDeath, kPowerLoss };

  /// Opens or creates. kCorrupt: it is no intact database.
  static Result<Database> open(const std::filesystem::path& path);
  Database(Database&& other) noexcept;
  Database& operator=(Database&& other) noexcept;
  ~Database();

  Status execute(const std::string& sql);
  /// kCorrupt: the tables do not have what it names.
  Result<Statement> prepare(std::string_view sql);

  /// Groups statements; without commit() everything since begin() is undone when the transaction ends.
  class Transaction {
   public:
    Transaction(Transaction&& other) noexcept;
    Transaction& operator=(Transaction&&) = delete;
    ~Transaction();
    Status commit();

   private:
    friend class Database;
    explicit Transaction(Database* database) : database_(database) {}
    Database* database_;
  };
  Result<Transaction> begin(Durability durability);

 private:
  explicit Database(sqlite3* handle, std::filesystem::path path) : handle_(handle), path_(std::move(path)) {}
  tl::unexpected<Error> error(std::string_view doing) const;
  sqlite3* handle_ = nullptr;
  std::filesystem::path path_;
  Durability durability_ = Durability::kPowerLoss;
};

}  // namespace fantail

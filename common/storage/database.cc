#include "common/storage/database.h"

#include <sqlite3.h>

#include <utility>

namespace fantail {
namespace {

ErrorCode code_of(int sqlite_code) {
  switch (sqlite_code & 0xFF) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return ErrorCode::kCorrupt;
    case SQLITE_FULL: return ErrorCode::kNoSpace;
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return ErrorCode::kBusy;
    default: return ErrorCode::kIo;
  }
}

}  // namespace

Statement::Statement(Statement&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
Statement& Statement::operator=(Statement&& other) noexcept {
  std::swap(handle_, other.handle_);
  return *this;
}
Statement::~Statement() { sqlite3_finalize(handle_); }

Statement& Statement::bind(int index, std::int64_t value) {
  sqlite3_bind_int64(handle_, index, value);
  return *this;
}
Statement& Statement::bind(int index, std::string_view text) {
  sqlite3_bind_text(handle_, index, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
  return *this;
}

Result<bool> Statement::step() {
  const int rc = sqlite3_step(handle_);
  if (rc == SQLITE_ROW) return true;
  if (rc == SQLITE_DONE) return false;
  return fail(code_of(rc), std::string("database: ") + sqlite3_errmsg(sqlite3_db_handle(handle_)));
}

Status Statement::run() {
  Result<bool> row = true;
  while (row && *row) row = step();
  reset();
  if (!row) return tl::unexpected(row.error());
  return {};
}

void Statement::reset() {
  sqlite3_reset(handle_);
  sqlite3_clear_bindings(handle_);
}

std::int64_t Statement::integer(int column) const { return sqlite3_column_int64(handle_, column); }
std::string Statement::text(int column) const {
  const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(handle_, column));
  if (bytes == nullptr) return {};
  return {bytes, static_cast<std::size_t>(sqlite3_column_bytes(handle_, column))};
}

Database::Database(Database&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)), path_(std::move(other.path_)), durability_(other.durability_) {}
Database& Database::operator=(Database&& other) noexcept {
  std::swap(handle_, other.handle_);
  std::swap(path_, other.path_);
  std::swap(durability_, other.durability_);
  return *this;
}
Database::~Database() { sqlite3_close_v2(handle_); }

tl::unexpected<Error> Database::error(std::string_view doing) const {
  const int rc = sqlite3_extended_errcode(handle_);
  return fail(code_of(rc), std::string(doing) + " " + path_.string() + ": " + sqlite3_errmsg(handle_));
}

Result<Database> Database::open(const std::filesystem::path& path) {
  sqlite3* handle = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  const int rc = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  Database database(handle, path);
  if (rc != SQLITE_OK) return database.error("cannot open");
  sqlite3_busy_timeout(handle, 2000);  // only status commands compete, and they only read
  if (auto ok = database.execute("PRAGMA journal_mode=WAL"); !ok) return tl::unexpected(ok.error());
  if (auto ok = database.execute("PRAGMA synchronous=FULL"); !ok) return tl::unexpected(ok.error());
  auto check = database.prepare("PRAGMA quick_check(1)");
  if (!check) return tl::unexpected(check.error());
  const auto row = check->step();
  if (!row) return tl::unexpected(row.error());
  if (!*row || check->text(0) != "ok") return fail(ErrorCode::kCorrupt, "damaged database " + path.string());
  return database;
}

Status Database::execute(const std::string& sql) {
  if (sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) return error("database");
  return {};
}

Result<Statement> Database::prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v3(handle_, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT, &statement,
                         nullptr) != SQLITE_OK) {
    if ((sqlite3_extended_errcode(handle_) & 0xFF) == SQLITE_ERROR) {  // not the world's fault, nor passing
      return fail(ErrorCode::kCorrupt,
                  "database " + path_.string() + ": its tables have another form: " + sqlite3_errmsg(handle_));
    }
    return error("database");
  }
  return Statement(statement);
}

Result<Database::Transaction> Database::begin(Durability durability) {
  if (durability != durability_) {
    const auto ok =
        execute(durability == Durability::kPowerLoss ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
    if (!ok) return tl::unexpected(ok.error());
    durability_ = durability;
  }
  if (auto ok = execute("BEGIN IMMEDIATE"); !ok) return tl::unexpected(ok.error());
  return Transaction(this);
}

Database::Transaction::Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
Database::Transaction::~Transaction() {
  if (database_ != nullptr) (void)database_->execute("ROLLBACK");  // what can fail here is already undone
}
Status Database::Transaction::commit() {
  auto ok = database_->execute("COMMIT");
  if (ok) database_ = nullptr;
  return ok;
}

}  // namespace fantail

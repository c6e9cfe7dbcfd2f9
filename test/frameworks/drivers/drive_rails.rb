# A site of one controller; each session is a browser with cookies of its own.
ENV["RAILS_ENV"] = "test"
require "logger"
require "pg"
require "rails"
require "active_record/railtie"
require "action_controller/railtie"
require "./drive"

BOUND = ARGV.include?("bound")

class Site < Rails::Application
  config.load_defaults 7.2
  config.root = Dir.pwd
  config.paths["config/database"] = "database.yml"
  config.secret_key_base = "secret" * 10
  config.eager_load = true
  config.consider_all_requests_local = false
  config.action_dispatch.show_exceptions = :none
  config.logger = Logger.new(nil)
  config.session_store :cookie_store, key: "site"
  config.active_record.database_selector = { delay: 0 }
end
require "./config" unless BOUND

Site.initialize!

class ApplicationRecord < ActiveRecord::Base
  primary_abstract_class
  connects_to database: { writing: :primary, reading: BOUND ? :bounded : :replica }
end

class Order < ApplicationRecord
end

class OrdersController < ActionController::Base
  skip_forgery_protection

  def create
    Order.create!(id: params[:id])
    redirect_to "/orders/#{params[:id]}"
  end

  def show
    render plain: Order.where(id: params[:id]).count
  end
end

Site.routes.draw do
  post "/orders/:id", to: "orders#create"
  get "/orders/:id", to: "orders#show"
end

browsers = Hash.new { |hash, name| hash[name] = ActionDispatch::Integration::Session.new(Rails.application) }
write = lambda do |session, id|
  browsers[session].post("/orders/#{id}")
  browsers[session].response.redirect? or raise browsers[session].response.status.to_s
end
read = lambda do |session, id|
  browsers[session].get("/orders/#{id}")
  browsers[session].response.body
end
drive(write, read) do |error|
  error.cause.result.error_field(PG::PG_DIAG_SQLSTATE) if error.cause.is_a?(PG::Error)
end
